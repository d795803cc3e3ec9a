"""Bitwise comparison of two checkouts: the same inputs, then every number of their outputs.

    python benchmarks/equivalence.py --before ../main --after .       # two checkouts
    python benchmarks/equivalence.py --before . --record before.json  # keep the figures of one ...
    python benchmarks/equivalence.py --after . --against before.json  # ... and compare with them later
    python benchmarks/equivalence.py                                  # this checkout twice: is it deterministic?

Each checkout runs two pipelines through its own commands, and only the files that these write are read:

- `make demo`: the simulated shop, its model and front, and every Delta table.
- The Diginetica week in `<data>/diginetica-week`: prepared sessions, one epoch of the preset `diginetica`, its front.

A figure is the SHA-256 of a file's numbers: arrays and table columns with their names, types and all rows. What differs
between two runs of one checkout is left out: seconds, times of publication, and the checksum in the table `published`,
which covers random file names. The tables' rows are compared instead.

Both checkouts run with the interpreter and packages of this command, on a CPU with one thread per process: the same
machine then gives the same bits. Another CPU model may round differently, so compare recorded figures on the machine
that recorded them. Exit status 1 where a figure differs or only one side has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
VOLATILE = ("seconds", "sessions_per_second", "published_at", "checksum", "model_version")
"""Columns that are left out. The model version is a hash of config and weights; it is a figure by itself."""

CPU = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SMALL_SHOP = ("--sessions", "9000", "--items", "1000")

Figures = dict[str, str]
"""Name -> SHA-256, hexadecimal."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, default=ROOT, metavar="CHECKOUT", help="default: this checkout")
    parser.add_argument("--after", type=Path, default=ROOT, metavar="CHECKOUT", help="default: this checkout")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--record", type=Path, metavar="FILE", help="write the figures of --before there and stop")
    kept.add_argument("--against", type=Path, metavar="FILE", help="recorded figures, in place of --before")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("MULTITRON_DATA") or ROOT.parent / "shared" / "data"),
        help="folder of the real data (default: MULTITRON_DATA, or ../shared/data beside this checkout)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the compared figures there as well")
    parser.add_argument("--small", action="store_true", help="a smaller shop, no real data: about two minutes per side")
    options = parser.parse_args()
    week = None if options.small else options.data / "diginetica-week"
    if week is not None and not week.is_dir():
        parser.error(f"no folder {week}: name it with --data, or leave the real data out with --small")

    try:
        before = json.loads(options.against.read_text()) if options.against else measure(options.before, week)
        if options.record:
            options.record.write_text(json.dumps(before, indent=1) + "\n")
            return 0
        after = measure(options.after, week)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = compare(before, after)
    print(as_markdown(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["same"] for row in rows) else 1


class CommandError(Exception):
    """A command of a checkout failed."""


def measure(checkout: Path, week: Path | None) -> Figures:
    """Run a checkout's pipelines in a temporary folder.

    Args:
        checkout: root of the checkout.
        week: folder with the Diginetica week, or None for the demo of a smaller shop alone.

    Returns:
        The figures of everything that the pipelines wrote.

    Raises:
        CommandError: a command failed.
    """
    checkout = checkout.resolve()
    with tempfile.TemporaryDirectory(prefix="equivalence-") as temporary:
        folder = Path(temporary)
        module = "orchestration.cli.demo" if (checkout / "orchestration/cli/demo.py").exists() else "orchestration.demo"
        run(checkout, module, "--home", folder / "shop", *(SMALL_SHOP if week is None else ()))
        figures = shop_figures(folder / "shop")
        if week is not None:
            figures |= week_figures(checkout, week, folder)
    return figures


def run(checkout: Path, module: str, *arguments: str | Path) -> str:
    """Run `python -m module` of a checkout; what it printed.

    Raises:
        CommandError: the exit status was not 0.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print(f"{checkout}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
    environment = {**os.environ, **CPU, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"{' '.join(command)} in {checkout} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def shop_figures(home: Path) -> Figures:
    """The figures of a shop's home: sessions, model folder and Delta tables."""
    figures = folder_figures("demo, sessions", home / "sessions" / "training")
    (weights,) = home.glob("models/*/weights.safetensors")
    figures |= folder_figures("demo, model", weights.parent)
    figures["demo, model version"] = digest(json.loads((weights.parent / "config.json").read_text())["version"])
    for table in sorted(path.parent for path in home.glob("lake/*/_delta_log")):
        frame = pl.read_delta(str(table))
        lists = frame.partition_by("pi", as_dict=True) if {"pi", "rank"} <= set(frame.columns) else {(): frame}
        for key, rows in sorted(lists.items()):
            # Readers of a Delta table get its files in any order.
            name = f"demo, table {table.name}" + "".join(f", pi {pi}" for pi in key)
            figures[name] = frame_digest(rows.sort(pl.exclude(VOLATILE)))
    return figures


def week_figures(checkout: Path, week: Path, folder: Path) -> Figures:
    """The figures of the Diginetica week: prepared sessions, and the model and front of one epoch on them."""
    sessions, model = folder / "week", folder / "model"
    run(
        checkout,
        "multitron_core.sessions",
        *("--format", "diginetica", "--data", week, "--split-days", "1", "--out", sessions),
    )
    figures = folder_figures("week, sessions", sessions)
    one_epoch = {"--set": "epochs=1"}, {"--training": '{"epochs": 1}'}  # of today and of version 0.1
    usage = run(checkout, "multitron_core.training", "--help")
    ((flag, value),) = next(choice for choice in one_epoch if next(iter(choice)) in usage).items()
    run(
        checkout,
        "multitron_core.training",
        *("--sessions", sessions, "--preset", "diginetica", "--device", "cpu", "--out", model, flag, value),
    )
    run(
        checkout,
        "multitron_core.front",
        *("--model", model, "--sessions", sessions, "--points", "5", "--device", "cpu", "--save"),
    )
    return figures | folder_figures("week, model", model)


def folder_figures(name: str, folder: Path) -> Figures:
    """The figures of every array, table and file of weights below a folder, named by its path in it."""
    folder = folder.resolve()  # prepared sessions may be a link to the newest ones
    readers = {
        ".npy": lambda path: array_digest(np.load(path)),
        ".parquet": lambda path: frame_digest(pl.read_parquet(path)),
        ".safetensors": lambda path: digest(path.read_bytes()),
    }
    found = {
        f"{name}, {path.relative_to(folder)}": readers[path.suffix](path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in readers
    }
    if not found:
        raise CommandError(f"there is nothing to compare in {folder}")
    return found


def frame_digest(frame: pl.DataFrame) -> str:
    """Names, types and values of the columns that are not volatile."""
    columns = frame.select(pl.exclude(VOLATILE)).get_columns()
    return digest(*(part for column in columns for part in (column.name, str(column.dtype), values(column))))


def values(column: pl.Series) -> str | bytes:
    """The values of a column, to the bit."""
    if column.dtype.is_numeric() and not column.null_count():
        return column.to_numpy().tobytes()
    return repr(column.to_list())


def array_digest(array: np.ndarray) -> str:
    """Type, shape and values of an array."""
    return digest(str(array.dtype), str(array.shape), array.tobytes())


def digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each behind its length."""
    found = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found.update(b"%d:" % len(content) + content)
    return found.hexdigest()


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per figure of either side: `figure`, `before`, `after` (None where it is missing), `same`."""
    pairs = {name: (before.get(name), after.get(name)) for name in {**before, **after}}
    return [{"figure": name, "before": b, "after": a, "same": b == a} for name, (b, a) in pairs.items()]


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with the first 12 digits of each figure, and how many are the same."""

    def lines() -> Iterator[str]:
        yield "| figure | before | after | same |\n|---|---|---|---|"
        for row in rows:
            digests = (row[side][:12] if row[side] else "missing" for side in ("before", "after"))
            yield f"| {row['figure']} | {' | '.join(digests)} | {'yes' if row['same'] else 'NO'} |"
        yield f"\n{sum(row['same'] for row in rows)} of {len(rows)} figures are the same"

    return "\n".join(lines())


if __name__ == "__main__":
    sys.exit(main())
