"""Compare measuring a front with shortlists and by scoring the whole catalogue: time and results.

    python benchmarks/front.py --model MODEL --sessions PREPARED     # a trained model, its prepared sessions
    python benchmarks/front.py                                       # trains a model on a small simulated shop

Both methods measure the same sessions at 26 preferences, alternating, `--rounds` times. Prints medians of wall and
processor seconds, the ratio per round, and the differences of ranks and losses. Exit status 1 if results differ by more
than ties: a loss by more than 1e-3, or more than one rank in ten thousand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from multitron_core.events.read import read_events
from multitron_core.front.files import model_and_test
from multitron_core.front.measurement import MANY_ITEMS, FrontMeasurement, measure_front
from multitron_core.model.folder import load_model
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.spacing import spaced_preferences
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig
from multitron_core.training.trainer import train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; by default a model of a simulated shop is trained")
    parser.add_argument("--sessions", type=Path, help="folder of the prepared sessions that it was trained on")
    parser.add_argument("--share", type=float, default=1.0, help="share of the test sessions, evenly spaced")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 for its default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="one round, one thread, a smaller shop")
    options = parser.parse_args()
    if (options.model is None) != (options.sessions is None):
        parser.error("pass --model and --sessions together")
    if options.small:
        options.rounds = options.threads = 1
        options.share = min(options.share, 0.25)
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds = options.rounds
    with tempfile.TemporaryDirectory() as temporary:
        if options.model is None:
            model, config, test = _simulated(Path(temporary), sessions=9_000 if options.small else 20_000)
        else:
            model, config, test = model_and_test(options.model, options.sessions)
    test = test.select(np.arange(0, len(test), max(1, round(1 / options.share))))
    if model.config.items < MANY_ITEMS:
        parser.error(f"{model.config.items} items: shortlists are used from {MANY_ITEMS} items, nothing to compare")
    print(f"{len(test)} sessions, {model.config.items} items, 26 preferences, {torch.get_num_threads()} threads")
    seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    measured: dict[bool, FrontMeasurement] = {}
    for number in range(rounds):
        for shortlists in (True, False) if number % 2 else (False, True):
            measured[shortlists], taken = _timed(model, test, config, shortlists)
            seconds[shortlists].append(taken)
    for shortlists, name in ((False, "whole catalogue"), (True, "shortlists")):
        wall, processor = (statistics.median(column) for column in zip(*seconds[shortlists], strict=True))
        print(f"{name:16} {wall:7.1f} s, {processor:7.1f} processor s (medians of {rounds})")
    ratios = [whole[0] / listed[0] for whole, listed in zip(seconds[False], seconds[True], strict=True)]
    print(f"shortlists are {statistics.median(ratios):.2f} times faster ({', '.join(f'{r:.2f}' for r in ratios)})")
    ranks = float((measured[True].ranks != measured[False].ranks).mean())
    losses = float(np.abs(measured[True].losses - measured[False].losses).max())
    print(f"share of ranks that differ: {ranks:.1e}; largest difference of a loss: {losses:.1e}")
    if options.json:
        figures = {"seconds": {"whole": seconds[False], "shortlists": seconds[True]}, "ranks": ranks, "losses": losses}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if losses > 1e-3 or ranks > 1e-4 else 0


def _timed(
    model: MultiTRON, test: EncodedSessions, config: TrainingConfig, shortlists: bool
) -> tuple[FrontMeasurement, tuple[float, float]]:
    """The measured front, with its wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    measured = measure_front(model, test, spaced_preferences(26), config=config, shortlists=shortlists)
    return measured, (time.perf_counter() - wall, time.process_time() - processor)


def _simulated(folder: Path, *, sessions: int) -> tuple[MultiTRON, TrainingConfig, EncodedSessions]:
    """A model of the preset "demo" with its training config, and its test sessions."""
    simulate(folder / "raw", sessions=sessions, items=40_000)
    data = prepare_sessions(read_events(folder / "raw", "table"), min_item_clicks=1)
    recipe = presets.demo().changed(training={"epochs": 2})
    train(data, recipe, folder / "model")
    return load_model(folder / "model"), recipe.training, data.test


if __name__ == "__main__":
    sys.exit(main())
