"""Simulate a shop's raw files: `python -m multitron_core.simulator --help`."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from multitron_core.simulator.formats import FORMATS
from multitron_core.simulator.simulation import simulate
from multitron_core.utils.command_line import command


@command
def main(arguments: list[str] | None = None) -> int:
    """Run `python -m multitron_core.simulator FOLDER`.

    Args:
        arguments: Arguments of the command line; those of the process if None.

    Returns:
        Exit status: 0, or 2 for refused input.
    """
    parser = argparse.ArgumentParser(
        prog="python -m multitron_core.simulator",
        description="Simulate a shop and write its raw files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="new folder for the raw files and the ground truth")
    parser.add_argument("--sessions", type=int, default=20_000, help="number of sessions")
    parser.add_argument("--items", type=int, default=2_000, help="number of items in the catalogue")
    parser.add_argument("--days", type=int, default=8, help="number of days")
    parser.add_argument(
        "--first-day", type=date.fromisoformat, default=date(2026, 1, 1), metavar="YYYY-MM-DD", help="first day"
    )
    parser.add_argument("--format", choices=sorted(FORMATS), default="table", help="format of the raw files")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    parser.add_argument("--replace", action="store_true", help="replace a different simulation in the folder")
    done = simulate(**vars(parser.parse_args(arguments)))
    print(f"{done.folder}: {len(done.files)} files, " + ", ".join(f"{n:,} {name}" for name, n in done.counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
