#!/bin/sh
# Starts Triton. Every client that reaches the port can score. Model control (loading a model of the python backend runs
# its code), shared memory, tracing and logging require the key in MULTITRON_TRITON_ADMIN_KEY. Deployed models are loaded
# at the start.
set -eu

: "${MULTITRON_TRITON_ADMIN_KEY:?set it to a long random text, and to the same text where deployments run}"
repository=${MODEL_REPOSITORY:-/models}
guarded=model-repository,shared-memory,trace,logging
key="multitron-admin-key=${MULTITRON_TRITON_ADMIN_KEY}"

set -- \
    "--model-repository=${repository}" \
    --model-control-mode=explicit \
    --disable-auto-complete-config \
    --exit-on-error=false \
    --strict-readiness=true \
    --exit-timeout-secs=30 \
    "--grpc-restricted-protocol=${guarded}:${key}" \
    "--http-restricted-api=${guarded}:${key}" \
    --allow-sagemaker=false \
    --allow-vertex-ai=false \
    "$@"
for config in "${repository}"/*/config.pbtxt; do
    if [ -e "${config}" ]; then
        set -- "--load-model=$(basename "$(dirname "${config}")")" "$@"
    fi
done
exec "${TRITON_SERVER:-tritonserver}" "$@"
