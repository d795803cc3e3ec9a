"""Simulate a shop's raw files: `python -m multitron_core.simulator --help`."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from multitron_core.simulator.formats import _FORMATS
from multitron_core.simulator.simulation import simulate
from multitron_core.utils.command_line import command


@command
def main(arguments: list[str] | None = None) -> int:
    """`python -m multitron_core.simulator FOLDER`: simulate a shop from the shell."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.simulator", description="Simulate a shop.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--first-day", type=date.fromisoformat, default=date(2026, 1, 1), metavar="YYYY-MM-DD")
    parser.add_argument("--format", choices=sorted(_FORMATS), default="table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replace", action="store_true", help="replace a different simulation in the folder")
    done = simulate(**vars(parser.parse_args(arguments)))
    print(f"{done.folder}: {len(done.files)} files, " + ", ".join(f"{n:,} {name}" for name, n in done.counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
