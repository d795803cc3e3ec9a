"""Compare rules for fitting the factors of own clicks, on held-out sessions that were not used for the fit.

    python benchmarks/own_clicks.py --models MODEL ... --sessions PREPARED    # one preset, one seed per model
    python benchmarks/own_clicks.py --small                                   # trains a model on a small simulated shop

The sessions that were held out from training are split into two halves (every second session). Each rule is fitted on
one half and evaluated on the other, in both directions: click recall@20 and order recall@20 at pi 0 and 1, and the loss
of ordered steps at pi 1. Test sessions are not used.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multitron_core.events.read import read_events
from multitron_core.front.evaluation import front_table
from multitron_core.front.files import model_and_test
from multitron_core.front.measurement import measure_front
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig
from multitron_core.training.data import split_rows
from multitron_core.training.own_clicks import TRIED, losses_of_numbers
from multitron_core.training.trainer import train
from multitron_core.training.validation import HeldOut

MEASURED = {
    "click recall@20 at pi 0": ("click_recall_20", 0),
    "order recall@20 at pi 0": ("order_recall_20", 0),
    "order recall@20 at pi 1": ("order_recall_20", 1),
}


def lowest(losses: np.ndarray) -> int:
    """Index of the factor with the lowest mean loss; `losses` is float [factors, steps]."""
    return int(losses.mean(axis=1).argmin())


def within_one_error(losses: np.ndarray) -> int:
    """Index of the smallest factor within one standard error of the difference from the best.

    The one-standard-error rule of Breiman et al., "Classification and Regression Trees", 1984.
    """
    worse = losses - losses[lowest(losses)]
    return int(np.argmax(worse.mean(axis=1) <= worse.std(axis=1) / np.sqrt(losses.shape[1])))


def fitted(rule: Callable[[np.ndarray], int], of_clicks: np.ndarray, of_orders: np.ndarray) -> tuple[float, float]:
    """The factors for clicks and for orders."""
    return TRIED[rule(of_clicks)], TRIED[rule(of_orders)]


RULES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]] = {
    "one number for both, of the lowest click loss": lambda clicks, orders: (TRIED[lowest(clicks)],) * 2,
    "smallest within one standard error": lambda clicks, orders: fitted(within_one_error, clicks, orders),
    "lowest loss (the preset's)": lambda clicks, orders: fitted(lowest, clicks, orders),
}


def evaluated(model: MultiTRON, config: TrainingConfig, prepared: PreparedSessions) -> dict[str, dict[str, Any]]:
    """Metrics of each rule over both halves, and the factors that it fitted."""
    assert model.own_clicks is not None
    _, rows = split_rows(prepared.train, config.validation_share)
    halves = [rows[0::2], rows[1::2]]
    held_out = [HeldOut(prepared.train, half, config, [1.0, 1.0], torch.float32) for half in halves]
    losses = [[losses_of_numbers(model, half, place) for place in range(2)] for half in held_out]
    found: dict[str, dict[str, Any]] = {}
    for name, rule in RULES.items():
        weighed: dict[str, float] = dict.fromkeys([*MEASURED, "loss of ordered steps at pi 1"], 0.0)
        numbers = []
        for fitted_on, evaluated_on in ((0, 1), (1, 0)):
            numbers.append(rule(*losses[fitted_on]))
            model.own_clicks.data.copy_(torch.tensor(numbers[-1]))
            front = front_table(
                measure_front(model, prepared.train.select(halves[evaluated_on]), [0.0, 1.0], config=config)
            )
            for column, (metric, point) in MEASURED.items():
                of = "ordered_steps" if metric.startswith("order") else "steps"
                weighed[column] += front[metric][point] * front[of][point] / sum(_steps(losses, of))
            of_number = losses[evaluated_on][1][TRIED.index(numbers[-1][1])]
            weighed["loss of ordered steps at pi 1"] += of_number.sum() / sum(_steps(losses, "ordered_steps"))
        found[name] = {"numbers (clicks, orders)": numbers, **weighed}
    return found


def _steps(losses: list[list[np.ndarray]], of: str) -> list[int]:
    """Number of steps in each half: all steps, or only ordered ones."""
    return [half[of == "ordered_steps"].shape[1] for half in losses]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", help="model folders, trained with own_clicks = 'added'")
    parser.add_argument("--sessions", type=Path, help="folder of the prepared sessions that they were trained on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="half a minute: a model of a simulated shop")
    options = parser.parse_args()
    if bool(options.models) != bool(options.sessions) or not (options.models or options.small):
        parser.error("pass --models and --sessions together, or --small")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        if not options.models:
            options.models, options.sessions = [Path(temporary) / "model"], Path(temporary) / "sessions"
            _train_small(Path(temporary))
        prepared = PreparedSessions.load(options.sessions)
        for folder in options.models:
            model, config, _ = model_and_test(folder, options.sessions)
            if model.own_clicks is None or len(model.config.objectives) != 2:
                parser.error(f"{folder} has no own clicks, or its objectives are not clicks and orders")
            for name, figures in evaluated(model, config, prepared).items():
                rows.append({"model": str(folder), "rule": name, **figures})
                shown = ", ".join(f"{key} {value:.4f}" for key, value in figures.items() if isinstance(value, float))
                print(f"{folder}, {name}: {figures['numbers (clicks, orders)']}; {shown}", flush=True)
    columns = [*MEASURED, "loss of ordered steps at pi 1"]
    print(f"\n| mean of {len(options.models)} models | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name in RULES:
        of_rule = [row for row in rows if row["rule"] == name]
        means = (float(np.mean([row[column] for row in of_rule])) for column in columns)
        print(f"| {name} | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _train_small(folder: Path) -> None:
    simulate(folder / "raw", sessions=8_000, items=500)
    prepared = prepare_sessions(read_events(folder / "raw", "table"))
    prepared.save(folder / "sessions")
    recipe = presets.demo().changed(
        model={"own_clicks": "added"}, training={"epochs": 2, "validation_share": 0.1, "threads": 1}
    )
    train(prepared, recipe, folder / "model", progress=False)


if __name__ == "__main__":
    sys.exit(main())
