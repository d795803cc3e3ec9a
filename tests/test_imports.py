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


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_a_package_imports_nothing_above_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files: this test would guard nothing"
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


def test_who_reads_lists_waits_neither_for_torch_nor_for_pictures() -> None:
    loaded = "import sys, orchestration.cli.read; print(*{'torch', 'matplotlib', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["polars"]


def test_what_dagster_and_the_command_line_load_has_no_pictures() -> None:
    loaded = "import sys, orchestration.cli.app, orchestration.definitions; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_guard_sees_an_import(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from dagster import asset\n    import serving.scorer\n")
    assert imported(path) == {"dagster", "serving"}
