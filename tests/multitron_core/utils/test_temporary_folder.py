"""Temporary folders: removed at the end of the block, or by the next process after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from multitron_core.utils.temporary_folder import is_running, temporary_folder


@pytest.fixture
def ended() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_folder_removes_itself_and_left_overs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # TMPDIR is read only once per process
    left, running = tmp_path / f"multitron-stage-{ended}-abc", tmp_path / f"multitron-stage-{os.getpid()}-abc"
    others = [tmp_path / f"multitron-other-{ended}-abc", tmp_path / "multitron-stage-of-another-program"]
    for folder in (left, running, *others):
        folder.mkdir()
        (folder / "file").touch()
    with temporary_folder("stage") as name:
        assert Path(name).name.startswith(f"multitron-stage-{os.getpid()}-")
        assert list(Path(name).iterdir()) == []
        (Path(name) / "file").touch()
    assert sorted(tmp_path.iterdir()) == sorted([running, *others])


def test_is_running_tells_ended_processes(ended: int) -> None:
    assert is_running(os.getpid())
    assert is_running(1), "a process of another user, or the parent of all"
    assert not is_running(ended)
