"""Replace a file atomically: readers find the old or the new contents, never a part of them.

The new contents are written under a temporary name in the same folder. A rename then replaces the file in one step.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitron_core.utils.temporary_folder import is_running

SUFFIX = ".writing"
"""Last suffix of every temporary name; who lists a folder can skip incomplete entries by it."""

_UNTOUCHED_SECONDS = 86_400.0  # no writer pauses for a day


@contextmanager
def atomic_file(path: Path | str, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block ends without an exception.

    After an exception or a killed process, `path` is unchanged. Temporary files of killed processes are removed by
    the next write to the same path. Concurrent writers do not disturb each other: the last one to finish wins.

    Args:
        path: File to create or replace; its folder must exist.
        sync: Whether to wait until the contents are on the disk (fsync) before the rename. This protects against a
            power failure; against a killed process the rename is enough.

    Yields:
        A path in the same folder that does not exist yet.

    Raises:
        OSError: For example a full disk or missing permissions; `path` is unchanged.
    """
    path = Path(path)
    new = temporary_sibling(path)
    try:
        yield new
        if sync:
            with new.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def temporary_sibling(path: Path) -> Path:
    """A new hidden name in the folder of `path`, for a file or folder that will replace it.

    What killed processes left under earlier names for the same path is removed. An entry counts as left over if it was
    created on this machine by a process that has ended, or if it has not been modified for a day.

    Returns:
        `.<name>.<machine>.<process>.<random>.writing`; nothing exists there yet.
    """
    prefix = f".{path.name}."
    machine = socket.gethostname()
    if path.parent.is_dir():
        for entry in path.parent.iterdir():
            if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX):
                _remove_if_left_over(entry, entry.name[len(prefix) : -len(SUFFIX)], machine)
    return path.with_name(f"{prefix}{machine}.{os.getpid()}.{uuid.uuid4().hex[:8]}{SUFFIX}")


def _remove_if_left_over(entry: Path, writer: str, machine: str) -> None:
    """Remove `entry` unless its `writer`, "<machine>.<process>.<random>", may still be running."""
    creator, _, process = writer.rpartition(".")[0].rpartition(".")
    try:
        untouched = time.time() - entry.lstat().st_mtime
    except FileNotFoundError:  # its writer has just renamed it
        return
    ended = creator == machine and process.isdecimal() and not is_running(int(process))
    if ended or untouched > _UNTOUCHED_SECONDS:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
