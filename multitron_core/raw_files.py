"""Finding raw files: a file, a folder, a glob, or several of these become files by role, sorted by name."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multitron_core.errors import InputError

Location = str | Path | Sequence[str | Path]

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, order=True)
class RawFile:
    """A file of raw data.

    Args:
        name: the path relative to the folder or the fixed part of the glob that was asked for; it is what rejects,
            statistics and the order of sessions refer to.
        path: where to open it.
    """

    name: str
    path: str


def find_raw_files(
    location: Location, roles: Mapping[str, str], *, format: str, storage_options: dict[str, str] | None = None
) -> dict[str, list[RawFile]]:
    """The files at `location` that belong to a format, by role, sorted by name.

    Args:
        location: a file, a folder (without its subfolders), a glob, or a sequence of these.
        roles: role -> regular expression searched in the file's name (without its folder).
        format: the format's name, for messages.

    Raises:
        InputError: nothing at `location`, or no file of the format there.
    """
    locations = [location] if isinstance(location, (str, Path)) else list(location)
    found = sorted({file for each in locations for file in _files_at(str(each))})
    if not found:
        raise InputError(
            "there is no file to read", where=location, mend=f"name a file, folder or glob with {format} files"
        )
    by_role: dict[str, list[RawFile]] = {role: [] for role in roles}
    for file in found:
        role = next((role for role, pattern in roles.items() if re.search(pattern, Path(file.name).name)), None)
        if role is not None:
            by_role[role].append(file)
    if not any(by_role.values()):
        raise InputError(
            f"no file is named like {format} data",
            where=location,
            found=[file.name for file in found[:5]],
            mend=f"the names must contain {' or '.join(roles.values())}",
        )
    return by_role


def _files_at(location: str) -> list[RawFile]:
    path = Path(location)
    if path.is_file():
        return [RawFile(path.name, location)]
    if (path / "_delta_log").is_dir():
        return [RawFile(f"{path.name}.delta", location)]
    if path.is_dir():
        return [RawFile(file.name, str(file)) for file in path.iterdir() if file.is_file()]
    if _MAGIC.search(location):
        root = Path(_MAGIC.split(location)[0]).parent if not _MAGIC.split(location)[0].endswith("/") else None
        root = Path(_MAGIC.split(location)[0]) if root is None else root
        matches = (Path(match) for match in glob.glob(location, recursive=True))
        return [RawFile(file.relative_to(root).as_posix(), str(file)) for file in matches if file.is_file()]
    raise InputError("no such file or folder", where=location, mend="check the path")
