#!/bin/sh
# Liveness probe: checks that the server answers and that the processes of its models run. Triton 2.51 neither restarts
# an ended process nor reports it at /v2/health. Usage: `alive.sh [PID]`, the process id of tritonserver; default 1, the
# first process of a container.
set -eu
curl --fail --silent "http://127.0.0.1:${HTTP_PORT:-8000}/v2/health/live"
for child in $(cat "/proc/${1:-1}"/task/*/children); do
    if grep --quiet --no-messages '^State:.Z' "/proc/${child}/status"; then
        echo "the process ${child} of a model has ended" >&2
        exit 1
    fi
done
