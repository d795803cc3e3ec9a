from __future__ import annotations

import dagster as dg
import pytest

from multitron_core.errors import InputError
from orchestration.runtime.executors import executor, on_queue


def test_executor_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTITRON_EXECUTOR", raising=False)
    assert executor().name == "multiprocess"
    monkeypatch.setenv("MULTITRON_EXECUTOR", "in_process")
    assert executor() is dg.in_process_executor


def test_executor_refuses_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_EXECUTOR", "slurm")
    with pytest.raises(InputError, match="slurm"):
        executor()


def test_on_queue_gives_a_gpu_to_the_gpu_queue_alone() -> None:
    limits = {
        queue: on_queue(queue)["dagster-k8s/config"]["container_config"]["resources"]["limits"]
        for queue in ("ingestion", "gpu", "scoring")
    }
    assert {queue for queue, found in limits.items() if "nvidia.com/gpu" in found} == {"gpu"}
    assert on_queue("gpu")["dagster-celery/queue"] == "gpu"
