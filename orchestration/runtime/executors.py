"""Executors: where the steps of a run execute, selected by MULTITRON_EXECUTOR.

The asset definitions are the same for all of them; each asset declares its queue once, with `on_queue`.

| MULTITRON_EXECUTOR | each step runs | started by |
|---|---|---|
| `local` (the default) | in a separate process on this machine | the run |
| `in_process` | in the process of its run, which saves process starts for a small shop | the run |
| `celery` | on a worker of its queue | `dagster-celery worker start -A dagster_celery.app -y celery.yaml -q <queue>` |
| `kubernetes` | in a separate pod with the resources of its queue | the cluster |
"""

from __future__ import annotations

import os
from typing import Any, Literal

import dagster as dg

from multitron_core.errors import InputError

EXECUTOR_VARIABLE = "MULTITRON_EXECUTOR"
BROKER_VARIABLE = "MULTITRON_CELERY_BROKER"
RESULTS_VARIABLE = "MULTITRON_CELERY_RESULTS"

Queue = Literal["ingestion", "gpu", "scoring"]
DEFAULT_QUEUE: Queue = "scoring"
"""The queue of steps without a queue."""

LONGEST_STEP_SECONDS = 12 * 3600
"""Longest duration of a step. After it Redis considers the worker dead and gives the step to another one."""

CELERY_SETTINGS: dict[str, Any] = {
    "task_default_queue": DEFAULT_QUEUE,
    # A step is acknowledged when it ends; if its worker process is killed, the step returns to its queue.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "broker_transport_options": {"visibility_timeout": LONGEST_STEP_SECONDS},
    # Steps take minutes: no step is reserved by a busy worker while another worker is idle.
    "worker_prefetch_multiplier": 1,
}
"""Settings that executor and workers must share; `celery.yaml` gives the same ones to the workers."""

_PRELOADED = ("dagster", "grpc")
"""The slowest imports that all steps need, loaded once per run. Not torch: few steps need it. Not polars: a process
with its threads must not be forked."""

_RESOURCES: dict[Queue, dict[str, dict[str, str]]] = {
    "ingestion": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
    "gpu": {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
    },
    "scoring": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
}


def on_queue(queue: Queue) -> dict[str, Any]:
    """The op tags of a step: its Celery queue, and the resources of its Kubernetes pod."""
    pod: dict[str, Any] = {"container_config": {"resources": _RESOURCES[queue]}}
    if queue == "gpu":
        taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        pod["pod_spec_config"] = {"tolerations": [taint]}
    return {"dagster-celery/queue": queue, "dagster-k8s/config": pod}


def executor() -> dg.ExecutorDefinition:
    """The executor that MULTITRON_EXECUTOR selects.

    Raises:
        InputError: the value is unknown, or the package of that executor is not installed.
    """
    name = os.environ.get(EXECUTOR_VARIABLE) or "local"
    if name == "local":
        return dg.multiprocess_executor.configured(
            {"start_method": {"forkserver": {"preload_modules": list(_PRELOADED)}}}, name="multiprocess"
        )
    if name == "in_process":
        return dg.in_process_executor
    if name not in ("celery", "kubernetes"):
        raise InputError(
            "unknown executor", where=EXECUTOR_VARIABLE, found=name, hint="use local, in_process, celery or kubernetes"
        )
    try:
        return _celery() if name == "celery" else _kubernetes()
    except ImportError as error:
        raise InputError(
            "the executor's package is not installed",
            where=EXECUTOR_VARIABLE,
            found=f"{name}: {error}",
            hint="pip install 'multitron-batch[cluster]'",
        ) from error


def _celery() -> dg.ExecutorDefinition:
    from dagster_celery import celery_executor

    return celery_executor.configured(
        {
            "broker": {"env": BROKER_VARIABLE},
            "backend": {"env": RESULTS_VARIABLE},
            "config_source": CELERY_SETTINGS,
        },
        name="celery",
    )


def _kubernetes() -> dg.ExecutorDefinition:
    from dagster_k8s import k8s_job_executor

    # The run launcher gives step pods the image, service account, volumes and environment of the run's pod.
    return k8s_job_executor
