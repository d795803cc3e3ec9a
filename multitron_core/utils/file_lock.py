"""Lock a file between processes: the operating system releases the lock when its process ends, even if it is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from multitron_core.errors import InputError


@contextmanager
def file_lock(path: Path, *, refusal: InputError | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block.

    Args:
        path: the lock file. It is created if missing and stays after the block; its folder must exist.
        refusal: raised at once if another holder has the lock; None waits until it is free.

    Raises:
        InputError: `refusal`.
        RuntimeError: this thread holds the lock already and would wait for itself.
        OSError: the file cannot be created, or its file system has no locks.
    """
    # The fallback would be a marker file, which a killed process leaves behind.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        held = lock.acquire(blocking=refusal is None)
    except Timeout as error:
        assert refusal is not None  # a blocking acquire has no time limit
        raise refusal from error
    with held:
        yield
