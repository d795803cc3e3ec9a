"""Atomic folders: old or new, complete, after success, failure and SIGKILL, and for readers at every moment."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from multitron_core.utils import atomic_folder as module
from multitron_core.utils.atomic_folder import atomic_folder, atomic_plain_folder

Writer = Callable[[Path], AbstractContextManager[Path]]
FILES = 20
WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from multitron_core.utils import atomic_folder
for number in itertools.count():
    with getattr(atomic_folder, sys.argv[1])(Path(sys.argv[2])) as new:
        for file in range(20):
            (new / str(file)).write_text(str(number))
"""
both = pytest.mark.parametrize("writer", [atomic_folder, atomic_plain_folder])


def write(path: Path, text: str, writer: Writer = atomic_folder) -> None:
    with writer(path) as folder:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)


def fail(path: Path, writer: Writer) -> None:
    with writer(path) as folder:
        (folder / "a").write_text("half")
        raise OSError("the disk is full")


def folders(parent: Path) -> list[Path]:
    """All folders and links to folders in `parent`."""
    return [each for each in parent.iterdir() if each.is_dir()]


@both
def test_atomic_folder_creates_and_replaces(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "deep" / "sessions"
    for text in ("old", "new", "newest"):
        write(path, text, writer)
        assert [(path / name).read_text() for name in "ab"] == [text, text]
    # A link, the folder it points to and the previous one; or a plain folder alone.
    assert len(folders(path.parent)) == (3 if writer is atomic_folder else 1)
    assert path.is_symlink() == (writer is atomic_folder)


@both
def test_atomic_folder_leaves_the_old_after_an_exception(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "sessions"
    write(path, "old", writer)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="full"):
        fail(path, writer)
    assert (path / "b").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


@both
def test_atomic_folder_leaves_nothing_after_an_exception(tmp_path: Path, writer: Writer) -> None:
    with pytest.raises(OSError, match="full"):
        fail(tmp_path / "sessions", writer)
    assert folders(tmp_path) == []


@both
def test_atomic_folder_refuses_to_replace_a_file(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "sessions"
    path.write_text("a file")
    if writer is atomic_folder:
        write(path, "new", writer)  # a link replaces a file like any rename
        assert (path / "a").read_text() == "new"
    else:
        with pytest.raises(NotADirectoryError):
            write(path, "new", writer)
        assert path.read_text() == "a file"


def test_atomic_folder_removes_left_overs(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    (tmp_path / "sessions.0123456789ab").mkdir()
    write(path, "new")
    assert len(folders(tmp_path)) == 2


def test_atomic_folder_replaces_a_plain_folder(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    path.mkdir()
    (path / "a").write_text("plain")
    write(path, "new")
    assert (path / "a").read_text() == "new"
    assert len(folders(tmp_path)) == 2


def test_atomic_plain_folder_replaces_a_link(tmp_path: Path) -> None:
    target, path = tmp_path / "elsewhere", tmp_path / "model"
    target.mkdir()
    path.symlink_to(target)
    write(path, "new", atomic_plain_folder)
    assert not path.is_symlink()
    assert sorted(folders(tmp_path)) == [target, path]
    assert list(target.iterdir()) == []


def test_atomic_folder_makes_a_second_writer_wait(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    second = threading.Thread(target=write, args=(path, "second"))
    with atomic_folder(path) as folder:
        second.start()
        second.join(0.2)
        assert second.is_alive()
        (folder / "a").write_text("first")
    second.join()
    assert [(path / name).read_text() for name in "ab"] == ["second", "second"]
    assert sorted(each.is_symlink() for each in folders(tmp_path)) == [False, False, True], "nothing is left over"


def test_atomic_plain_folder_keeps_concurrent_writers_apart(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_plain_folder(path) as folder:
        (folder / "a").write_text("first")
        write(path, "second", atomic_plain_folder)
        assert (path / "b").read_text() == "second"
    assert [file.name for file in path.iterdir()] == ["a"]
    assert folders(tmp_path) == [path]


@both
def test_atomic_folder_keeps_open_files_readable(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "sessions"
    write(path, "old", writer)
    with (path / "a").open() as held:
        write(path, "new", writer)
        assert held.read() == "old"


@both
@pytest.mark.parametrize("plain_before", [False, True])
def test_atomic_folder_exists_at_every_moment(tmp_path: Path, writer: Writer, plain_before: bool) -> None:
    path = tmp_path / "sessions"
    if plain_before:
        path.mkdir()
    else:
        write(path, "0", writer)
    missing, looked, stop = [], 0, threading.Event()

    def look() -> None:
        nonlocal looked
        while not stop.is_set():
            if not os.path.isdir(path):
                missing.append(True)
            looked += 1

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(200):
        write(path, str(number), writer)
        before = looked  # the previous folder stays for one replacement: no look may span two
        while looked == before:
            time.sleep(0)
    stop.set()
    reader.join()
    assert not missing


@both
def test_atomic_folder_is_complete_after_sigkill(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "model"
    name = "atomic_folder" if writer is atomic_folder else "atomic_plain_folder"
    pauses = random.Random(7)
    for _ in range(6):
        seen = (path / "0").read_text() if path.exists() else None
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, name, path]) as process:
            while not path.exists() or _first(path) == seen:
                assert process.poll() is None
            time.sleep(pauses.uniform(0.0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert sorted(int(file.name) for file in path.iterdir()) == list(range(FILES))
        assert len({file.read_text() for file in path.iterdir()}) == 1
    write(path, "after", writer)
    write(path, "after", writer)  # the previous folder of a link goes with the second replacement
    assert len(folders(tmp_path)) == (3 if writer is atomic_folder else 1)


def _first(path: Path) -> str | None:
    """Contents of the first file; None if the folder has been replaced since its name was looked up."""
    try:
        return (path / "0").read_text()
    except FileNotFoundError:
        return None


def test_atomic_plain_folder_without_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    # The file systems of a test machine can exchange names; NFS, which cannot, is not at hand.
    monkeypatch.setattr(module, "_exchange", unsupported)
    path = tmp_path / "model"
    for text in ("old", "new"):
        write(path, text, atomic_plain_folder)
        assert (path / "a").read_text() == text
    assert folders(tmp_path) == [path]
