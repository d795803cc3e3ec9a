"""Folders for what is needed for a while; those of a killed process are removed by the next one that needs such."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """A new, empty folder in the system's folder for temporary files (TMPDIR); it goes with `cleanup` or the block.

    Args:
        purpose: a word for its name, by which left-over ones are found: `multitron-<purpose>-<process>-...`.
    """
    remove_left_over(purpose)
    return tempfile.TemporaryDirectory(prefix=f"multitron-{purpose}-{os.getpid()}-", ignore_cleanup_errors=True)


def remove_left_over(purpose: str) -> None:
    """Remove the folders of that purpose whose processes have ended."""
    prefix = f"multitron-{purpose}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder.name.removeprefix(prefix).split("-")[0]
        if owner.isdecimal() and not is_running(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stay


def is_running(process_id: int) -> bool:
    """Whether a process of that number runs, whoever started it."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
