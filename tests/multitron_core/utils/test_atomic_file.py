"""`atomic_file`: old or new contents after success, failure and SIGKILL; left-overs are removed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from multitron_core.utils.atomic_file import SUFFIX, atomic_file, temporary_sibling

WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from multitron_core.utils.atomic_file import atomic_file
for number in itertools.count():
    with atomic_file(Path(sys.argv[1])) as new, new.open("w") as file:
        for line in range(1000):
            file.write(f"{number}\\n")
"""


def write(path: Path, text: str, *, sync: bool = False) -> None:
    with atomic_file(path, sync=sync) as new:
        new.write_text(text)


@pytest.mark.parametrize("sync", [False, True])
def test_atomic_file_creates_and_replaces(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "file.json"
    for text in ("old", "new"):
        write(path, text, sync=sync)
        assert path.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_atomic_file_leaves_the_old_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "old")

    def fail() -> None:
        with atomic_file(path) as new:
            new.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


def test_atomic_file_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "file", "text")


def test_atomic_file_lets_concurrent_writers_finish(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [str(number) * 100_000 for number in range(4)]

    def repeat(text: str) -> None:
        for _ in range(25):
            write(path, text)

    threads = [threading.Thread(target=repeat, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_text() in texts
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_atomic_file_is_complete_after_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pauses = random.Random(7)
    for _ in range(5):
        seen = path.read_text() if path.exists() else None
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path]) as writer:
            while not path.exists() or path.read_text() == seen:
                assert writer.poll() is None
            time.sleep(pauses.uniform(0.0, 0.02))
            writer.send_signal(signal.SIGKILL)
        lines = path.read_text().splitlines()
        assert len(lines) == 1000
        assert len(set(lines)) == 1
    write(path, "after")  # removes what the killed processes left
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def ended() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_sibling_removes_left_overs(tmp_path: Path, ended: int) -> None:
    name = temporary_sibling(tmp_path / "file").name
    mine = f".{os.getpid()}."
    assert (name[:6], mine in name, name[-8:]) == (".file.", True, SUFFIX)
    (tmp_path / name.replace(mine, f".{ended}.")).touch()  # of a killed process
    running, elsewhere, other = (
        tmp_path / each for each in (name, f".file.other-host.{ended}.0{SUFFIX}", f".file2.{name[6:]}")
    )
    for entry in (running, elsewhere, other):
        entry.touch()
    abandoned = tmp_path / f".file.other-host.1.0{SUFFIX}"
    (abandoned / "folder").mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    temporary_sibling(tmp_path / "file")
    assert sorted(tmp_path.iterdir()) == sorted([running, elsewhere, other])
