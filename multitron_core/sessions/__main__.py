"""Prepare sessions from raw files: `python -m multitron_core.sessions --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from multitron_core.events.formats import FORMATS, ColumnMapping
from multitron_core.events.read import read_events
from multitron_core.sessions.prepare import format_statistics, prepare_sessions
from multitron_core.utils.command_line import command


@command
def main(arguments: list[str] | None = None) -> int:
    """Run `python -m multitron_core.sessions`.

    Args:
        arguments: Arguments of the command line; those of the process if None.

    Returns:
        Exit status: 0, or 2 for refused input.
    """
    parser = argparse.ArgumentParser(
        prog="python -m multitron_core.sessions", description="Prepare training sessions from raw events."
    )
    parser.add_argument("--data", required=True, nargs="+", help="files, folders or globs of raw events")
    parser.add_argument("--format", required=True, help=f"one of {', '.join(FORMATS)}")
    parser.add_argument(
        "--columns", type=json.loads, help="for `table`: column mapping as JSON, with session_gap in minutes"
    )
    parser.add_argument("--without-orders", action="store_true", help="accept files of clicks without files of orders")
    parser.add_argument("--split-days", type=float, help="days of the test set; default: those of the format")
    parser.add_argument(
        "--objectives", nargs="+", default=["click", "order"], metavar="NAME", help="click, then order, cart or both"
    )
    parser.add_argument("--max-reject-share", type=float, default=0.01, help="largest accepted share of bad lines")
    parser.add_argument("--stats", action="store_true", help="print the statistics")
    parser.add_argument("--out", type=Path, help="folder for the prepared sessions")
    options = parser.parse_args(arguments)
    if not options.stats and options.out is None:
        parser.error("nothing to do: give --stats, --out FOLDER, or both")
    prepared = prepare_sessions(
        read_events(
            options.data,
            options.format,
            columns=None if options.columns is None else ColumnMapping.from_settings(options.columns),
            orders_required=not options.without_orders,
        ),
        options.format,
        split_days=options.split_days,
        objectives=options.objectives,
        max_reject_share=options.max_reject_share,
    )
    if options.out is not None:
        prepared.save(options.out)
    if options.stats:
        print(format_statistics(prepared.statistics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
