"""Replace a folder atomically: readers find the old or the new folder, complete, at every moment.

There are two variants, for two kinds of readers:

- `atomic_folder` makes `path` a symbolic link to `<path>.<id>`. A reader that resolves the link once keeps reading one
  state, because the previous folder stays until the next replacement. Prepared sessions are memory-mapped this way.
- `atomic_plain_folder` keeps `path` a plain folder, which people open, copy and archive. Model folders are of this
  kind. The previous folder is removed at once, so a reader must open it again when a file is missing.

A folder cannot be renamed onto another one. On Linux both variants exchange the two names in one step instead
(`renameat2` with RENAME_EXCHANGE, Linux 3.15 or newer, see https://man7.org/linux/man-pages/man2/rename.2.html).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitron_core.utils.atomic_file import temporary_sibling
from multitron_core.utils.file_lock import file_lock

_AT_FDCWD = -100  # relative paths start at the working directory
_RENAME_EXCHANGE = 2
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder to write to; when the block ends without an exception, `path` is a link to it.

    After an exception or a killed process, `path` is unchanged. The previous folder stays until the next replacement,
    for readers that have resolved the link. Older folders, and those that killed processes left, are removed. A second
    writer waits until the first one has finished.

    Args:
        path: Name of the folder; its parent is created if missing. A plain folder of this name is replaced by the
            link and removed.

    Yields:
        The new folder, `<path>.<id>`.

    Raises:
        OSError: For example a full disk or missing permissions; `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f".{path.name}.lock")):
        previous = path.resolve().name if path.is_symlink() else None
        new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
        new.mkdir()
        try:
            yield new
            link = new.with_name(new.name + ".link")
            link.symlink_to(new.name)
            _put_in_place(link, path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        for other in path.parent.glob(f"{path.name}.????????????*"):
            if other.name not in (new.name, previous):
                _remove(other)


@contextmanager
def atomic_plain_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder to write to; when the block ends without an exception, it replaces the folder `path`.

    After an exception or a killed process, `path` is unchanged. Temporary folders of killed processes are removed by
    the next write to the same path. Concurrent writers do not disturb each other: the last one to finish wins.

    Args:
        path: Name of the folder; its parent is created if missing. The existing folder, or a link of this name, is
            removed after the replacement.

    Yields:
        The new folder, whose name ends in `atomic_file.SUFFIX`.

    Raises:
        OSError: For example a full disk or missing permissions; `path` is unchanged.
    """
    path = Path(path)
    new = temporary_sibling(path)
    new.mkdir(parents=True)
    try:
        yield new
        _put_in_place(new, path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _remove(new)  # now the name of the previous folder


def _put_in_place(new: Path, path: Path) -> None:
    """Rename `new` to `path`; a folder that was at `path` gets the name of `new`.

    File systems that cannot exchange names, for example NFS, and systems other than Linux need three renames. There
    `path` is missing for the moment between the first and the second.
    """
    try:
        os.rename(new, path)  # enough if nothing, an empty folder or (for a new link) another link is there
    except OSError:
        if not path.is_dir():
            raise
    else:
        return
    try:
        _exchange(new, path)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        previous = temporary_sibling(path)
        os.rename(path, previous)
        os.rename(new, path)
        os.rename(previous, new)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names of one file system in a single step.

    Raises:
        OSError: With an errno of `_NOT_SUPPORTED` where the system or the file system cannot exchange names.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        code = errno.ENOSYS
    elif rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    else:
        code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _remove(path: Path) -> None:
    """Remove a folder or a link; harmless if there is none. What cannot be removed stays as a left-over."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
