"""Command line: `python -m multitron_core.report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from multitron_core.report import FILE_NAME, write_report
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.utils.command_line import command


@command
def main(arguments: list[str] | None = None) -> int:
    """Write a report and print its path."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.report", description="Write a model report.")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--sessions", type=Path, required=True, help="folder of prepared sessions")
    parser.add_argument("--out", type=Path, help=f"path of the report, by default {FILE_NAME} in the model folder")
    parser.add_argument("--objective", default="order_density", help="objective of the operating point")
    parser.add_argument("--max-click-recall-loss", type=float, default=0.02, help="largest loss of click recall@20")
    given = parser.parse_args(arguments)
    path = write_report(
        given.model,
        PreparedSessions.load(given.sessions),
        given.out,
        objective=given.objective,
        max_click_recall_loss=given.max_click_recall_loss,
        progress=lambda doing: print(f"{doing} ...", file=sys.stderr),
    )
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
