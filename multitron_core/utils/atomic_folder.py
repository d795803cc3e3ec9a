"""A folder that is replaced whole: readers find the old one or the new one, never none and never half of one.

A folder cannot be renamed onto another, but a symbolic link can. So `path` is a link to `<path>.<id>`; the new folder
is written beside the old one, and one rename turns the link.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitron_core.utils.file_lock import file_lock


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Give a new, empty folder to write into; when the block ends well, `path` is that folder, else it is as it was.

    The folder before stays until the next swap, for readers that have resolved the link; what is older, or was left
    behind by a killed process, is removed. A second writer waits until the first has ended.

    Args:
        path: the folder's name; its parent is made when it is missing.

    Raises:
        OSError: a full disk, missing rights; `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f".{path.name}.lock")):
        before = path.resolve().name if path.is_symlink() else None
        new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
        new.mkdir()
        try:
            yield new
            link = new.with_name(new.name + ".link")
            link.symlink_to(new.name)
            if path.is_dir() and not path.is_symlink():  # a plain folder of that name gives way once
                path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}"))
            os.replace(link, path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        for other in path.parent.glob(f"{path.name}.????????????*"):
            if other.name not in (new.name, before):
                other.unlink() if other.is_symlink() else shutil.rmtree(other, ignore_errors=True)
