"""Imports run one way: orchestration -> serving -> multitron_core."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "multitron_core": {"serving", "orchestration", "dagster", "tritonclient"},
    "serving": {"orchestration", "dagster"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def imported_modules(path: Path) -> set[str]:
    """The modules that a file imports, with their packages; a name that is imported counts as one."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def private_to_dagster(module: str) -> bool:
    package, *parts = module.split(".")
    return package.partition("_")[0] == "dagster" and any(part.startswith("_") for part in parts)


def test_no_file_imports_a_private_module_of_dagster() -> None:
    files = [
        path
        for folder in ("multitron_core", "serving", "orchestration", "chaos", "benchmarks", "deploy", "docs", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    found = {str(path): sorted(filter(private_to_dagster, imported_modules(path))) for path in files}
    assert {path: modules for path, modules in found.items() if modules} == {}


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
def test_the_guard_knows_a_private_module(line: str, private: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(f"def f():\n    {line}\n")
    assert any(map(private_to_dagster, imported_modules(path))) == private


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_a_package_imports_nothing_above_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files: this test would guard nothing"
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


def test_who_reads_lists_waits_neither_for_torch_nor_for_pictures() -> None:
    loaded = "import sys, orchestration.reading; print(*{'torch', 'matplotlib', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["polars"]


def test_what_dagster_and_the_command_line_load_has_no_pictures() -> None:
    loaded = "import sys, orchestration.cli, orchestration.definitions; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_guard_sees_an_import(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from dagster import asset\n    import serving.scorer\n")
    assert imported(path) == {"dagster", "serving"}
