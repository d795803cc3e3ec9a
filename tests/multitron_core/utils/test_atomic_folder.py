from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from multitron_core.utils.atomic_folder import atomic_folder


def write(path: Path, text: str) -> None:
    with atomic_folder(path) as folder:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)


def folders(parent: Path) -> list[Path]:
    """The link, the folder it points to, and the one before."""
    return [each for each in parent.iterdir() if each.is_dir()]


def test_a_folder_appears_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sessions"
    write(path, "old")
    assert (path / "a").read_text() == "old"
    write(path, "new")
    assert (path / "b").read_text() == "new"
    write(path, "newest")
    assert len(folders(path.parent)) == 3


def test_a_failure_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    write(path, "old")

    def fail() -> None:
        with atomic_folder(path) as folder:
            (folder / "a").write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (path / "a").read_text() == "old"
    assert len(folders(tmp_path)) == 2


def test_what_a_killed_process_left_is_removed_and_a_plain_folder_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    path.mkdir()
    (path / "a").write_text("plain")
    (tmp_path / "sessions.0123456789ab").mkdir()
    write(path, "new")
    assert (path / "a").read_text() == "new"
    assert len(folders(tmp_path)) == 2


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
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


def test_an_open_file_outlives_the_swap(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    write(path, "old")
    with (path / "a").open() as held:
        write(path, "new")
        assert held.read() == "old"


def test_a_reader_never_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    write(path, "0")
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
        write(path, str(number))
        before = looked  # a folder stays for one swap more: no look may be two swaps old
        while looked == before:
            time.sleep(0)
    stop.set()
    reader.join()
    assert not missing
