#!/bin/sh
# Starts Triton so that scoring is open to whoever reaches the port, and changing what is served is not: loading and
# unloading models (which for the python backend means running code), shared memory, tracing and logging ask for the
# key in MULTITRON_TRITON_ADMIN_KEY. The model that is deployed is loaded at the start; before the first deployment there is none.
set -eu

: "${MULTITRON_TRITON_ADMIN_KEY:?set it to a long random text, and to the same one where deployments run}"
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
