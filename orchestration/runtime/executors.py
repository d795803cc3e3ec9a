"""Where a step runs: on this machine, on a Celery worker, or in a Kubernetes pod of its own.

The definitions are the same everywhere. Each asset names its queue once; MULTITRON_EXECUTOR says who reads the name:

| MULTITRON_EXECUTOR | a step runs | who listens |
|---|---|---|
| `local` (the default) | in a process of its own, here | |
| `in_process` | in the process of its run: a small shop saves the starts of processes | |
| `celery` | on a worker of its queue | `dagster-celery worker start -A dagster_celery.app -y celery.yaml -q <queue>` |
| `kubernetes` | in a pod of its own, sized for its queue | the cluster |
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
"""The queue of steps that name none."""

LONGEST_STEP_SECONDS = 12 * 3600
"""A step that has not ended after so long is given to another worker: Redis takes its first one for dead."""

CELERY_SETTINGS: dict[str, Any] = {
    "task_default_queue": DEFAULT_QUEUE,
    # A step belongs to its worker until it is done; one whose process was killed goes back into its queue.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "broker_transport_options": {"visibility_timeout": LONGEST_STEP_SECONDS},
    # A step takes minutes: none waits behind one worker while another is idle.
    "worker_prefetch_multiplier": 1,
}
"""What the executor and the workers must agree on; `celery.yaml` says the same to the workers."""

_PRELOADED = ("torch.export", "dagster", "grpc")
"""What takes most of a step's start, imported once a run. Not polars: a process with its threads must not be forked."""

_RESOURCES: dict[Queue, dict[str, dict[str, str]]] = {
    "ingestion": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
    "gpu": {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
    },
    "scoring": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
}


def on_queue(queue: Queue) -> dict[str, Any]:
    """The op tags of a step: its Celery queue, and its pod's size on Kubernetes."""
    pod: dict[str, Any] = {"container_config": {"resources": _RESOURCES[queue]}}
    if queue == "gpu":
        taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        pod["pod_spec_config"] = {"tolerations": [taint]}
    return {"dagster-celery/queue": queue, "dagster-k8s/config": pod}


def executor() -> dg.ExecutorDefinition:
    """The executor that MULTITRON_EXECUTOR names.

    Raises:
        InputError: it names none, or one whose package is not installed.
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
            "unknown executor", where=EXECUTOR_VARIABLE, found=name, hint="local, in_process, celery or kubernetes"
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

    # Image, service account, volumes and environment are those of the run's own pod, from the run launcher.
    return k8s_job_executor
