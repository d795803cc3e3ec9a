"""Temporary folders; the next process with the same purpose removes those that a killed process left."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Create an empty folder in the system's folder for temporary files (TMPDIR).

    Folders of ended processes with the same purpose are removed first.

    Args:
        purpose: A word for the folder's name, `multitron-<purpose>-<process>-<random>`.

    Returns:
        The folder, as a context manager; the end of the block, or `cleanup`, removes it.
    """
    remove_left_over(purpose)
    return tempfile.TemporaryDirectory(prefix=f"multitron-{purpose}-{os.getpid()}-", ignore_cleanup_errors=True)


def remove_left_over(purpose: str) -> None:
    """Remove the temporary folders of a purpose whose processes have ended.

    Args:
        purpose: As given to `temporary_folder`.
    """
    prefix = f"multitron-{purpose}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder.name.removeprefix(prefix).split("-")[0]
        if owner.isdecimal() and not is_running(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)  # those of another user stay


def is_running(process_id: int) -> bool:
    """Whether a process with this number runs on this machine, started by any user."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
