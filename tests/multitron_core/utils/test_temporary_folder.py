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
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_goes_with_its_block_and_takes_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, alive = tmp_path / f"multitron-stage-{ended}-abc", tmp_path / f"multitron-stage-{os.getpid()}-abc"
    others = [tmp_path / f"multitron-other-{ended}-abc", tmp_path / "multitron-stage-of-somebody"]
    for folder in (left, alive, *others):
        folder.mkdir()
        (folder / "file").touch()
    with temporary_folder("stage") as name:
        assert Path(name).name.startswith(f"multitron-stage-{os.getpid()}-")
        assert list(Path(name).iterdir()) == []
        (Path(name) / "file").touch()
    assert sorted(tmp_path.iterdir()) == sorted([alive, *others])


def test_who_runs(ended: int) -> None:
    assert is_running(os.getpid())
    assert is_running(1), "another user's, or our own"
    assert not is_running(ended)
