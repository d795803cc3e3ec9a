"""Search for raw files: folders, globs, names, duplicates."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.errors import InputError
from multitron_core.events.raw_files import Location, RawFile, find_raw_files, refuse_duplicates

ROLES = {"clicks": "clicks", "orders": "buys"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/clicks.dat", "b/buys.dat", "a/clicks.dat.gz", "clicks-1.dat", "README.md", "deep/er/clicks.dat"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "raw"


def names(location: Location, root: str | None = None) -> dict[str, list[str]]:
    found = find_raw_files(location, ROLES, format="yoochoose", root=root)
    return {role: [file.name for file in files] for role, files in found.items()}


def test_find_raw_files_ignores_subfolders(folder: Path) -> None:
    for location in (folder, str(folder), "raw", "./raw", "./raw/"):
        assert names(location) == {"clicks": ["clicks-1.dat"], "orders": []}
    assert names("raw/b") == {"clicks": ["clicks.dat"], "orders": ["buys.dat"]}


def test_find_raw_files_names_files_relative_to_glob(folder: Path) -> None:
    assert names(f"{folder}/*/*.dat*") == {"clicks": ["a/clicks.dat.gz", "b/clicks.dat"], "orders": ["b/buys.dat"]}
    assert names("./raw/**/clicks*")["clicks"] == [
        "a/clicks.dat.gz", "b/clicks.dat", "clicks-1.dat", "deep/er/clicks.dat",
    ]  # fmt: skip
    assert names("raw/b/*", root="raw") == {"clicks": ["b/clicks.dat"], "orders": ["b/buys.dat"]}


def test_find_raw_files_of_several_locations(folder: Path) -> None:
    assert names(folder / "clicks-1.dat") == {"clicks": ["clicks-1.dat"], "orders": []}
    assert names([folder / "clicks-1.dat", folder / "b", folder / "b/clicks.dat"]) == {
        "clicks": ["clicks-1.dat", "clicks.dat"],
        "orders": ["buys.dat"],
    }
    assert find_raw_files("raw/b", ROLES, format="yoochoose")["orders"] == [RawFile("buys.dat", "raw/b/buys.dat")]


def test_find_raw_files_without_a_match_is_an_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no file to read"):
        names(folder / "empty")
    with pytest.raises(InputError, match=r"no such file or folder.*nowhere"):
        names(folder / "nowhere")
    with pytest.raises(InputError, match="no file to read"):
        names(f"{folder}/*.parquet")
    with pytest.raises(InputError, match=r"no file name matches the format yoochoose.*README.md.*clicks or buys"):
        names(folder / "README.md")


def test_refuse_duplicates_names_both_files() -> None:
    twice = [RawFile("clicks.dat", "raw/clicks.dat"), RawFile("clicks.dat.gz", "raw/clicks.dat.gz")]
    with pytest.raises(InputError, match=r"more than once.*clicks.dat.*clicks.dat.gz"):
        refuse_duplicates({"clicks": twice, "orders": []})
    refuse_duplicates({"clicks": twice[:1], "orders": [RawFile("buys.dat.gz", "raw/buys.dat.gz")]})
