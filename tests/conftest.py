"""Shared fixtures: where the real data is, and how many threads a test may take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("multitron", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("multitron")

# Dagster's SQLite waits for the disk at every event; what a test writes need not outlive the machine.
_MEMORY, _ROOM = Path("/dev/shm"), 4 << 30
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# The test processes share the cores; more threads than cores make both slower.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left alone with one at the end."""
    slow: dict[Path, int] = {}
    for item in items:
        slow[item.path] = slow.get(item.path, 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: slow[item.path] == 0)


@pytest.fixture
def cuda() -> torch.device:
    """A GPU, for what only one can show."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each kind of device in turn."""
    return request.getfixturevalue("cuda") if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data (MULTITRON_DATA, by default ../shared/data beside the checkout)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MULTITRON_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MULTITRON_DATA to its folder")
    return folder
