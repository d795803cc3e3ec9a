"""Who may import whom: between the three packages, and between the subpackages of two of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.import_graph import PACKAGES, ROOT, Import, edges, imports_of, levels

CORE: tuple[str, ...] = (
    *("errors", "utils", "preference", "lake", "events", "sessions", "model", "losses", "metrics"),
    *("training", "front", "baselines", "report"),
)
"""The packages of `multitron_core`; each imports only what stands to its left."""

ORCHESTRATION: tuple[str | tuple[str, ...], ...] = (
    "shop",
    ("lifecycle", "runtime"),
    "assets",
    "automation",
    "code_location",
    ("definitions", "cli"),
)
"""The packages and modules of `orchestration`; each imports only what stands to its left, not what stands beside it."""

NAMED = {
    "simulator": {"errors", "utils"},
    "official": {*CORE[: CORE.index("report")]} - {"front", "baselines"},
    "own_clicks": {"training"},
}
"""What stands in no order of `CORE`, and all that it may import."""

WITHOUT_TORCH = ("preference", "lake", "events", "sessions", "simulator")

FORBIDDEN = {
    "multitron_core": {"serving", "orchestration", "dagster", "tritonclient"},
    "serving": {"orchestration", "dagster"},
}
"""Top-level packages that each package must not import."""


def allowed(order: Sequence[str | tuple[str, ...]]) -> dict[str, set[str]]:
    """What each unit of an order may import: all that stands to its left."""
    left: set[str] = set()
    found: dict[str, set[str]] = {}
    for each in order:
        units = (each,) if isinstance(each, str) else each
        found |= {unit: set(left) for unit in units}
        left |= set(units)
    return found


def breaches(package: str, rules: dict[str, set[str]], root: Path = ROOT) -> list[str]:
    """The imports of a package that its rules forbid, one line each."""
    return [
        f"{place.file.relative_to(root)}:{place.line}: {importer} must not import {imported} ({place.name})"
        for (importer, imported), places in edges(package, root).items()
        if imported not in rules.get(importer, set())
        for place in places
    ]


def test_no_file_imports_a_private_name_of_another() -> None:
    found = [each for package in PACKAGES for file in (ROOT / package).rglob("*.py") for each in imports_of(file)]
    ours = [each for each in found if each.name.split(".")[0] in PACKAGES]
    assert ours
    assert [each for each in ours if any(re.match(r"_[a-z]", part) for part in each.name.split("."))] == []


def is_private_to_dagster(name: str) -> bool:
    """Whether an imported name is, or stands in, a private module of Dagster or of one of its libraries."""
    package, *parts = name.split(".")
    return package.partition("_")[0] == "dagster" and any(part.startswith("_") for part in parts)


def test_no_file_imports_a_private_module_of_dagster() -> None:
    folders = (*PACKAGES, "chaos", "benchmarks", "deploy", "docs", "tests")
    found = [each for folder in folders for file in (ROOT / folder).rglob("*.py") for each in imports_of(file)]
    assert found
    assert [each for each in found if is_private_to_dagster(each.name)] == []


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("from dagster._core.event_api import PartitionKeyFilter", True),
        ("from dagster import _check", True),
        ("import dagster_k8s._private.x", True),
        ("import dagster as dg", False),
        ("from dagster_k8s.launcher import K8sRunLauncher", False),
        ("from other._core import x", False),
    ],
)
def test_a_private_module_of_dagster_is_found(line: str, private: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(f"def f():\n    {line}\n")
    assert [is_private_to_dagster(each.name) for each in imports_of(path)] == [private]


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_packages_import_nothing_above_them(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files: this test would guard nothing"
    found = [each for file in files for each in imports_of(file)]
    assert [each for each in found if each.name.split(".")[0] in FORBIDDEN[package]] == []


def test_core_packages_import_only_from_the_left() -> None:
    assert breaches("multitron_core", allowed(CORE) | NAMED) == []


def test_orchestration_packages_import_only_from_the_left() -> None:
    assert breaches("orchestration", allowed(ORCHESTRATION)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_no_circle_of_imports(package: str) -> None:
    assert levels(edges(package))


def test_every_package_has_its_place() -> None:
    folders = {path.parent.name for path in (ROOT / "multitron_core").glob("*/__init__.py")}
    assert folders == {*CORE, "simulator"} - {"errors"}
    in_order = {name for each in ORCHESTRATION for name in ([each] if isinstance(each, str) else each)}
    assert {path.parent.name for path in (ROOT / "orchestration").glob("*/__init__.py")} <= in_order


@pytest.mark.parametrize(
    "line",
    [
        "from multitron_core.front.volume import hypervolume",
        "from multitron_core import front",
        "import multitron_core.front",
        "def f():\n    from multitron_core.front import hypervolume",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from multitron_core.front import hypervolume",
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, line: str) -> None:
    for name in ("lake", "front"):
        (tmp_path / "multitron_core" / name).mkdir(parents=True)
    (tmp_path / "multitron_core" / "lake" / "tables.py").write_text(f"{line}\n")
    (tmp_path / "multitron_core" / "front" / "volume.py").write_text("from multitron_core import lake\n")
    found = breaches("multitron_core", allowed(CORE), tmp_path)
    assert len(found) == 1
    assert "lake must not import front" in found[0]
    with pytest.raises(ValueError, match="cycle"):
        levels(edges("multitron_core", tmp_path))


def test_a_forbidden_package_is_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from dagster import asset\n    import serving.scorer\n")
    assert [*imports_of(path)] == [Import(path, 2, "dagster.asset"), Import(path, 3, "serving.scorer")]


def loaded_modules(statement: str) -> set[str]:
    """The modules that a new process has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_data_packages_load_without_torch() -> None:
    names = ", ".join(f"multitron_core.{package}" for package in WITHOUT_TORCH)
    assert loaded_modules(f"import {names}") & {"torch", "polars"} == {"polars"}


def test_reading_lists_loads_neither_torch_nor_matplotlib() -> None:
    assert loaded_modules("import orchestration.cli.read") & {"torch", "matplotlib", "polars"} == {"polars"}


def test_dagster_and_the_command_line_load_no_torch() -> None:
    loaded = loaded_modules("import orchestration.cli.app, orchestration.definitions")
    assert loaded & {"torch", "matplotlib", "jinja2", "apprise", "dagster"} == {"dagster"}
