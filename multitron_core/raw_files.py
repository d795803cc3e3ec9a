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
    location: Location,
    roles: Mapping[str, str],
    *,
    format: str,
    root: str | None = None,
    storage_options: dict[str, str] | None = None,
) -> dict[str, list[RawFile]]:
    """The files at `location` that belong to a format, by role, sorted by name.

    Args:
        location: a file, a folder (without its subfolders), a glob, or a sequence of these.
        roles: role -> regular expression searched in the file's name (without its folder).
        format: the format's name, for messages.
        root: the folder that names are relative to, instead of the one that `location` implies.

    Raises:
        InputError: nothing at `location`, or no file of the format there.
    """
    locations = [location] if isinstance(location, (str, Path)) else list(location)
    found = sorted({file for each in locations for file in _files_at(str(each), root)})
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


def refuse_twins(files: Mapping[str, Sequence[RawFile]]) -> None:
    """Refuse a file that is there twice, plain and compressed: its events would count twice.

    Raises:
        InputError: names the two.
    """
    seen: dict[str, str] = {}
    for file in (file for found in files.values() for file in found):
        stem = re.sub(r"\.(gz|zst)$", "", file.name)
        if stem in seen:
            raise InputError(
                "the same file is there twice", found=[seen[stem], file.name], mend="keep one, or name the one to read"
            )
        seen[stem] = file.name


def _files_at(location: str, root: str | None) -> list[RawFile]:
    path = Path(location)
    if path.is_file():
        return [_named(path, Path(root or path.parent))]
    if (path / "_delta_log").is_dir():
        return [RawFile(f"{_named(path, Path(root or path.parent)).name}.delta", location)]
    if path.is_dir():
        return [_named(file, Path(root or path)) for file in path.iterdir() if file.is_file()]
    if _MAGIC.search(location):
        fixed = _MAGIC.split(location)[0]
        fixed_folder = Path(root or (fixed if fixed.endswith("/") else Path(fixed).parent))
        return [
            _named(Path(match), fixed_folder) for match in glob.glob(location, recursive=True) if Path(match).is_file()
        ]
    raise InputError("no such file or folder", where=location, mend="check the path")


def _named(path: Path, folder: Path) -> RawFile:
    return RawFile(path.relative_to(folder).as_posix(), str(path))
