"""The imports between the project's packages, as a graph: `make imports` prints it.

An import counts wherever it stands: at the top of a file, inside a function, or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("multitron_core", "serving", "orchestration")


@dataclass(frozen=True)
class Import:
    """One imported module or name: `file:line` imports `name`, for example "multitron_core.lake.channels.Channel"."""

    file: Path
    line: int
    name: str


def imports_of(file: Path) -> Iterator[Import]:
    """Every absolute import of a Python file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (Import(file, node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def unit(package: str, parts: tuple[str, ...]) -> str | None:
    """The part of a package that a module path belongs to: a subpackage or a module right below it.

    Args:
        package: "multitron_core", "serving" or "orchestration".
        parts: a module path or a file path, for example ("multitron_core", "lake", "channels").

    Returns:
        For example "lake"; None for the package itself or another package.
    """
    if len(parts) < 2 or parts[0] != package:
        return None
    return parts[1].removesuffix(".py")


def edges(package: str, root: Path = ROOT) -> dict[tuple[str, str], list[Import]]:
    """The imports between the units of a package: (importer, imported) -> where."""
    units = {path.stem for path in (root / package).iterdir() if path.suffix == ".py" or path.is_dir()}
    found: dict[tuple[str, str], list[Import]] = {}
    for file in sorted((root / package).rglob("*.py")):
        importer = unit(package, file.relative_to(root).parts)
        for each in imports_of(file):
            imported = unit(package, tuple(each.name.split(".")))
            if importer in (None, "__init__", imported) or imported not in units:
                continue
            found.setdefault((str(importer), imported), []).append(each)
    return found


def levels(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Units by level: each imports only units of the levels before its own.

    Raises:
        graphlib.CycleError: units import each other in a circle.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for importer, imported in pairs:
        sorter.add(importer, imported)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    return found


def main() -> int:
    """Print each package's units from the bottom to the top, with what they import; exit status 1 at a circle."""
    for package in PACKAGES:
        pairs = edges(package)
        print(package)
        try:
            ordered = levels(pairs)
        except CycleError as error:
            print(f"  a circle: {' -> '.join(error.args[1])}")
            return 1
        for number, units in enumerate(ordered):
            for each in units:
                targets = sorted(imported for importer, imported in pairs if importer == each)
                print(f"  {number} {each:22}" + (f" -> {', '.join(targets)}" if targets else ""))
    print("no circle")
    return 0


if __name__ == "__main__":
    sys.exit(main())
