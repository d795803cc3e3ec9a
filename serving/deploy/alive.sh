#!/bin/sh
# Whether the server lives and so do the processes of its models: Triton 2.51 neither starts a process again that has
# ended nor says so at /v2/health. `alive.sh [PID]`: of tritonserver, which is the first process of a container.
set -eu
curl --fail --silent "http://127.0.0.1:${HTTP_PORT:-8000}/v2/health/live"
for child in $(cat "/proc/${1:-1}"/task/*/children); do
    if grep --quiet --no-messages '^State:.Z' "/proc/${child}/status"; then
        echo "the process ${child} of a model has ended" >&2
        exit 1
    fi
done
