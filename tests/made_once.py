"""Folders that one process of a test run makes and all its processes read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multitron_core.utils.file_lock import file_lock


def made_once(factory: pytest.TempPathFactory, worker: str, name: str, make: Callable[[Path], object]) -> Path:
    """A folder made by the first test process that asks for it; the others wait. Tests must not write to it.

    Args:
        factory: pytest's `tmp_path_factory`.
        worker: pytest-xdist's `worker_id`; "master" without it.
        name: of the folder, unique in the test run.
        make: fills the folder, which does not exist yet.
    """
    root = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    folder, made = root / name, root / f"{name}.made"
    with file_lock(root / f"{name}.lock"):
        if not made.exists():
            assert not folder.exists(), f"making {folder} failed in another process, see its error"
            make(folder)
            made.touch()
    return folder
