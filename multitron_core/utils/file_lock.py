"""A lock between processes; it ends with the process that has it, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitron_core.errors import InputError


@contextmanager
def file_lock(path: Path, *, refusal: InputError | None = None) -> Iterator[None]:
    """Hold a file against every other holder for the block.

    Args:
        path: the file, which is made when it is missing and stays; its folder must be there.
        refusal: raised when another one has it; None waits until it is free.

    Raises:
        InputError: `refusal`.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError as error:
            assert refusal is not None
            raise refusal from error
        yield
