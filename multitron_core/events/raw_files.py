"""Search for raw files: a file, a folder, a glob or several of these become files by role, sorted by name."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError, UnavailableError

Location = str | Path | Sequence[str | Path]
"""A path, glob or object-store URL, or several of them."""

_GLOB_CHARACTERS = re.compile(r"[*?\[]")


@dataclass(frozen=True, order=True)
class RawFile:
    """One file of raw data.

    Args:
        name: Path relative to the folder or to the fixed part of the glob. Rejects, statistics and the order of
            sessions refer to it.
        path: Path or address to open.
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
    """Find the files of a format.

    Args:
        location: A file, a folder (without its subfolders), a glob, or a sequence of these, as paths or object-store
            URLs. A folder that contains a Delta log counts as one file, whose name ends in `.delta`.
        roles: Role -> regular expression that is searched in the file's name (without its folder).
        format: Name of the format, for error messages.
        root: Folder that names are relative to, in place of the one that follows from `location`.
        storage_options: Options of the object store, as polars takes them.

    Returns:
        Files by role, sorted by name.

    Raises:
        InputError: `location` has no file, or no file of the format.
        UnavailableError: The object store does not answer.
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
            f"no file name matches the format {format}",
            where=location,
            found=[file.name for file in found[:5]],
            hint=f"the names must contain {' or '.join(roles.values())}",
        )
    return by_role


def refuse_duplicates(files: Mapping[str, Sequence[RawFile]]) -> None:
    """Refuse a file that exists with more than one compression (or none), because its events would count twice.

    Raises:
        InputError: Names the two files.
    """
    seen: dict[str, str] = {}
    for file in (file for found in files.values() for file in found):
        stem = re.sub(r"\.(gz|zst)$", "", file.name)
        if stem in seen:
            raise InputError(
                "a file exists more than once, with different compression",
                found=[seen[stem], file.name],
                hint="keep one of the two, or name the one to read",
            )
        seen[stem] = file.name


def _files_at(location: str, root: str | None) -> list[RawFile]:
    path = Path(location)
    location, root = str(path), None if root is None else str(Path(root))  # "./raw/" and "raw" give the same names
    if path.is_file():
        return [_named(location, root or str(path.parent))]
    if (path / "_delta_log").is_dir():
        return [_delta(location, root or str(path.parent))]
    if path.is_dir():
        return [_named(str(file), root or location) for file in path.iterdir() if file.is_file()]
    if _GLOB_CHARACTERS.search(location):
        matches = glob.glob(location, recursive=True)
        return [_named(match, root or _fixed_folder(location)) for match in matches if Path(match).is_file()]
    raise InputError("no such file or folder", where=location, hint="check the path")


def _objects_at(location: str, root: str | None, storage_options: dict[str, str] | None) -> list[RawFile]:
    location = location.rstrip("/")
    if _GLOB_CHARACTERS.search(location):
        matches = _list_objects(location, storage_options)
        return [_named(match, root or _fixed_folder(location)) for match in matches]
    parent = location.rpartition("/")[0]
    # The name is written as a glob that matches it alone: polars does not check that a plain name exists.
    if _list_objects(f"{location[:-1]}[{location[-1]}]", storage_options):
        return [_named(location, root or parent)]
    if _list_objects(f"{location}/_delta_log/*", storage_options):
        return [_delta(location, root or parent)]
    return [_named(match, root or location) for match in _list_objects(f"{location}/*", storage_options)]


def _list_objects(pattern: str, storage_options: dict[str, str] | None) -> list[str]:
    """List the objects that match a glob.

    polars expands the glob when it plans a scan, and keeps the paths in the plan. The plan is not part of its public
    interface. With the public interface, every object would have to be read once to learn its name.
    """
    scan = pl.scan_lines(pattern, storage_options=storage_options)
    try:
        plan = scan._ldf.visit().view_current_node()
    except OSError as error:
        raise UnavailableError(
            "the object store cannot be listed", where=pattern, found=str(error), hint="check address and credentials"
        ) from error
    return [str(path) for path in getattr(plan, "paths", [])]  # without a match, the plan is that of an empty frame


def _fixed_folder(pattern: str) -> str:
    return _GLOB_CHARACTERS.split(pattern)[0].rpartition("/")[0]


def _named(path: str, folder: str) -> RawFile:
    return RawFile(path.removeprefix(folder).lstrip("/"), path)


def _delta(path: str, folder: str) -> RawFile:
    return RawFile(f"{_named(path.rstrip('/'), folder).name}.delta", path)
