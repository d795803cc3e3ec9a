"""Finding raw files: a file, a folder, a glob, or several of these become files by role, sorted by name."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError, UnavailableError

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
        location: a file, a folder (without its subfolders), a glob, or a sequence of these; a path or an object-store
            URL. A folder with a Delta log in it is one file, whose name ends in `.delta`.
        roles: role -> regular expression searched in the file's name (without its folder).
        format: the format's name, for messages.
        root: the folder that names are relative to, instead of the one that `location` implies.
        storage_options: for object stores, as polars takes them.

    Raises:
        InputError: nothing at `location`, or no file of the format there.
        UnavailableError: the object store does not answer.
    """
    locations = [location] if isinstance(location, (str, Path)) else list(location)
    found = sorted(
        {
            file
            for each in map(str, locations)
            for file in (_objects_at(each, root, storage_options) if "://" in each else _files_at(each, root))
        }
    )
    if not found:
        raise InputError(
            "there is no file to read", where=location, hint=f"name a file, folder or glob with {format} files"
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
            hint=f"the names must contain {' or '.join(roles.values())}",
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
                "the same file is there twice", found=[seen[stem], file.name], hint="keep one, or name the one to read"
            )
        seen[stem] = file.name


def _files_at(location: str, root: str | None) -> list[RawFile]:
    path = Path(location)
    location, root = str(path), None if root is None else str(Path(root))  # "./raw/" and "raw" name the same files
    if path.is_file():
        return [_named(location, root or str(path.parent))]
    if (path / "_delta_log").is_dir():
        return [_delta(location, root or str(path.parent))]
    if path.is_dir():
        return [_named(str(file), root or location) for file in path.iterdir() if file.is_file()]
    if _MAGIC.search(location):
        matches = glob.glob(location, recursive=True)
        return [_named(match, root or _fixed_folder(location)) for match in matches if Path(match).is_file()]
    raise InputError("no such file or folder", where=location, hint="check the path")


def _objects_at(location: str, root: str | None, storage_options: dict[str, str] | None) -> list[RawFile]:
    location = location.rstrip("/")
    if _MAGIC.search(location):
        matches = _list_objects(location, storage_options)
        return [_named(match, root or _fixed_folder(location)) for match in matches]
    above = location.rpartition("/")[0]
    # As a glob of one name: a name without a glob would be taken for granted.
    if _list_objects(f"{location[:-1]}[{location[-1]}]", storage_options):
        return [_named(location, root or above)]
    if _list_objects(f"{location}/_delta_log/*", storage_options):
        return [_delta(location, root or above)]
    return [_named(match, root or location) for match in _list_objects(f"{location}/*", storage_options)]


def _list_objects(pattern: str, storage_options: dict[str, str] | None) -> list[str]:
    """The objects that fit a glob.

    polars expands it when it plans a scan and keeps the paths in the plan. That is not its public interface; the
    public way would be to read every object once to learn its name.
    """
    scan = pl.scan_lines(pattern, storage_options=storage_options)
    try:
        plan = scan._ldf.visit().view_current_node()
    except OSError as error:
        raise UnavailableError(
            "the object store cannot be listed", where=pattern, found=str(error), hint="check address and credentials"
        ) from error
    return [str(path) for path in getattr(plan, "paths", [])]  # the plan of nothing is an empty frame


def _fixed_folder(pattern: str) -> str:
    return _MAGIC.split(pattern)[0].rpartition("/")[0]


def _named(path: str, folder: str) -> RawFile:
    return RawFile(path.removeprefix(folder).lstrip("/"), path)


def _delta(path: str, folder: str) -> RawFile:
    return RawFile(f"{_named(path.rstrip('/'), folder).name}.delta", path)
