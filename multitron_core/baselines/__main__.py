"""Measure the baselines on prepared sessions and print their metrics.

python -m multitron_core.baselines --sessions SESSIONS [--single-objective MODEL]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import polars as pl

from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.baselines.single_objective import evaluate_single_objective
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.utils.command_line import command
from multitron_core.utils.text_table import as_table


@command
def main(arguments: list[str] | None = None) -> int:
    """Print the table of the baselines."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.baselines", description="Measure the baselines.")
    parser.add_argument("--sessions", type=Path, required=True, help="folder of prepared sessions (train/ and test/)")
    parser.add_argument("--k", type=int, default=20, help="list length of the metrics")
    parser.add_argument(
        "--single-objective",
        type=Path,
        metavar="MODEL",
        help="folder of a model that was trained with the setting trained_pi",
    )
    given = parser.parse_args(arguments)
    single = given.single_objective and evaluate_single_objective(given.single_objective, given.sessions, k=given.k)
    train, test = (EncodedSessions.load(given.sessions / split) for split in ("train", "test"))
    table = evaluate_baselines(train, test, k=given.k)
    if single is not None:
        table = pl.concat([table, single.select(table.columns)])
    print(as_table(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
