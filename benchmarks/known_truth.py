"""Compare recommendation lists with the ground truth of a simulated shop, for each order loss.

    python benchmarks/known_truth.py [--losses bce ordered_softmax ranked_bce] [--seeds 3] [--shop 1]

Simulates the shop of `make demo`, trains its preset with each order loss and seed, and measures five preferences: the
recalls of the test steps, and for the list after each whole test session its expected clicks (the probability that the
list contains the next click) and expected orders (the probability that it contains the next click and its item is
ordered) under the simulator's probabilities. Both are shares of the largest possible value.

Prints a table of means over seeds with their range (largest minus smallest), with the baselines and the best possible
lists for comparison, and per loss whether order recall, recall x density and expected orders rise from the first to the
last non-dominated point with trained ranks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from multitron_core.baselines.evaluation import default_baselines, evaluate_baselines
from multitron_core.baselines.scorer import BaselineScorer
from multitron_core.events.read import read_events
from multitron_core.front.evaluation import front_table
from multitron_core.front.measurement import measure_front
from multitron_core.losses.objective_losses import EVENT_LOSSES
from multitron_core.metrics.ranking import ranking_metrics, score_blocks
from multitron_core.model.folder import load_model
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import pi_key
from multitron_core.report.measurements import states_of, steps_of
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.simulator.ground_truth import Truth
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.trainer import train

K = 20
MEASURED_PI = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN_PI = (0.0, 0.5, 1.0)
COLUMNS = {
    "click recall@20": "click_recall_20",
    "order recall@20": "order_recall_20",
    "expected clicks": "expected_clicks",
    "expected orders": "expected_orders",
}
RISING = {
    "order recall@20": "order_recall_20",
    "recall x density": "recall_x_density",
    "expected orders": "expected_orders",
}


class Judge:
    """Expected clicks and orders of the lists after whole test sessions, as shares of the best possible lists."""

    def __init__(self, truth: Truth, data: PreparedSessions) -> None:
        self.truth, self.data = truth, data
        self.prefixes = np.split(np.asarray(data.test.items), data.test.offsets[1:-1])
        self.sessions = [self.ids(prefix).tolist() for prefix in self.prefixes]
        self.best_clicks, self.best_orders = 1.0, 1.0
        most = [self.worth(truth.best_lists(self.sessions, K, pi_order=pi)) for pi in (0.0, 1.0)]
        self.best_clicks, self.best_orders = most[0]["expected_clicks"], most[1]["expected_orders"]

    def ids(self, indices: np.ndarray) -> np.ndarray:
        """Item ids of the vocabulary's indices, in the same shape."""
        return self.data.vocabulary.decode(indices).to_numpy().reshape(indices.shape)

    def worth(self, lists: np.ndarray) -> dict[str, float]:
        """Expected clicks and orders of lists of item ids, int64 [sessions, K]."""
        clicks = self.truth.expected_clicks(self.sessions, lists.tolist()).mean() / self.best_clicks
        orders = self.truth.expected_orders(self.sessions, lists.tolist()).mean() / self.best_orders
        return {"expected_clicks": float(clicks), "expected_orders": float(orders)}


@torch.inference_mode()
def model_lists(model: MultiTRON, prefixes: Sequence[np.ndarray], pi: float) -> np.ndarray:
    """Indices of the K items with the highest scores after each prefix, int64 [prefixes, K]."""
    lists = np.empty((len(prefixes), K), np.int64)
    for place, scores in score_blocks(states_of(model, prefixes, pi_key(pi)), model.item_embedding.weight[1:]):
        lists[place] = 1 + scores.topk(K, dim=1).indices.numpy()
    return lists


def counted_lists(scorer: BaselineScorer, prefixes: Sequence[np.ndarray], popular: np.ndarray) -> np.ndarray:
    """Lists of a baseline after each prefix, int64 [prefixes, K]; short lists end with the most popular items."""
    lengths = np.array([len(prefix) for prefix in prefixes])
    back = np.concatenate([np.arange(length)[::-1] for length in lengths]).astype(np.int32)
    steps = {"step": np.repeat(np.arange(len(prefixes)), lengths), "item": np.concatenate(prefixes), "back": back}
    scored = scorer(pl.DataFrame(steps)).sort("step", "score", "item", descending=[False, True, False])
    by_step = dict(scored.group_by("step").agg(pl.col("item").head(K)).iter_rows())
    return np.array([list(dict.fromkeys([*by_step.get(step, []), *popular]))[:K] for step in range(len(prefixes))])


def figures(data: PreparedSessions, truth: Truth, recipe: presets.Preset, folder: Path) -> dict[str, Any]:
    """Train one loss with one seed: one row per preference, and the processor seconds of the training."""
    torch.set_num_threads(1)
    began = time.process_time()
    train(data, recipe, folder, device="cpu", progress=False)
    seconds = time.process_time() - began
    model, judge = load_model(folder), Judge(truth, data)
    rows = front_table(measure_front(model, data, MEASURED_PI, config=recipe.training)).to_dicts()
    for row in rows:
        row |= judge.worth(judge.ids(model_lists(model, judge.prefixes, row["pi_order"])))
    return {"points": rows, "processor s": seconds}


def counts_and_truth(judge: Judge) -> dict[str, list[dict[str, Any]]]:
    """One row per baseline, and rows of the best possible lists at the shown preferences."""
    data, truth = judge.data, judge.truth
    popular = 1 + np.argsort(-np.bincount(data.train.items, minlength=len(data.vocabulary) + 1)[1:], kind="stable")
    baselines = default_baselines(data.train)
    found = {}
    for row in evaluate_baselines(data.train, data.test, baselines=baselines, k=K).to_dicts():
        lists = counted_lists(baselines[row["baseline"]], judge.prefixes, popular[: 2 * K])
        found[row["baseline"]] = [row | judge.worth(judge.ids(lists))]
    steps = steps_of(data.test, max_length=50, sessions=len(data.test))
    known, targets = [judge.ids(prefix).tolist() for prefix in steps.prefixes], judge.ids(steps.targets)
    best = []
    for pi in SHOWN_PI:
        hits = truth.best_lists(known, K, pi_order=pi) == targets[:, None]
        ranks = np.where(hits.any(axis=1), 1 + hits.argmax(axis=1), K + 1)
        measured = ranking_metrics(pl.DataFrame({"rank": ranks, "ordered": steps.ordered, "last": steps.last}), k=K)
        best.append({**measured, **judge.worth(truth.best_lists(judge.sessions, K, pi_order=pi))})
    return found | {"best possible lists": best}


def rise(runs: list[dict[str, Any]], column: str) -> dict[str, Any]:
    """A column at the first and the last non-dominated point with trained ranks: means over seeds, change per seed."""
    eligible = [[row[column] for row in run["points"] if row["ranks_trained"] and not row["dominated"]] for run in runs]
    changes = [values[-1] - values[0] for values in eligible]
    first, last = (float(np.mean([values[end] for values in eligible])) for end in (0, -1))
    return {"first": first, "last": last, "changes": changes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--shop", type=int, default=1, help="seed of the simulation")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per loss, all on the same shop")
    parser.add_argument("--losses", nargs="+", choices=tuple(EVENT_LOSSES), default=list(EVENT_LOSSES), metavar="LOSS")
    parser.add_argument("--jobs", type=int, default=1, help="parallel trainings, one process each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="half a minute: 4,000 sessions, one epoch, one seed")
    options = parser.parse_args()
    changes: dict[str, Any] = {"threads": 1}
    if options.small:
        options.sessions, options.items, options.seeds, changes["epochs"] = 4_000, 500, 1, 1
    torch.set_num_threads(1)
    base = presets.demo().changed(training=changes)
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "raw"
        simulate(raw, sessions=options.sessions, items=options.items, days=8, seed=options.shop)
        data, truth = prepare_sessions(read_events(raw, "table"), "table"), Truth.load(raw)
        print(f"train {len(data.train):,} sessions, evaluate {len(data.test):,}; {base.training.epochs} epochs")
        judge = Judge(truth, data)
        print(f"the best lists: expected clicks {judge.best_clicks:.4f}, expected orders {judge.best_orders:.4f}")
        others = counts_and_truth(judge)
        with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as processes:
            jobs = {
                loss: [
                    processes.submit(
                        figures,
                        data,
                        truth,
                        base.changed(training={"order_loss": loss, "seed": seed}),
                        Path(temporary) / f"{loss}-{seed}",
                    )
                    for seed in range(1, options.seeds + 1)
                ]
                for loss in options.losses
            }
            runs = {}
            for loss in options.losses:
                runs[loss] = [job.result() for job in jobs[loss]]
                seconds = np.mean([run["processor s"] for run in runs[loss]])
                print(f"  {loss}: {seconds:.0f} processor s per training", flush=True)
                if options.json:
                    options.json.write_text(json.dumps({"runs": runs, "others": others}, indent=2) + "\n")
    print(_markdown(runs, others) + "\n")
    for loss, of_seeds in runs.items():
        described = [_describe_rise(name, rise(of_seeds, column)) for name, column in RISING.items()]
        print(f"{loss}, first to last non-dominated point: " + "; ".join(described))
    return 0


def _markdown(runs: dict[str, list[dict[str, Any]]], others: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown table of the means; after each group of columns, the largest range over seeds within it."""
    lines = ["| pi " + " / ".join(f"{pi:.2f}" for pi in SHOWN_PI) + " | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for loss, of_seeds in runs.items():
        cells = []
        for column in COLUMNS.values():
            points = [[run["points"][MEASURED_PI.index(pi)][column] for run in of_seeds] for pi in SHOWN_PI]
            spread = max(float(np.ptp(values)) for values in points)
            cells.append(" / ".join(f"{np.mean(values):.4f}" for values in points) + f" ± {spread:.4f}")
        lines.append(f"| {loss} | " + " | ".join(cells) + " |")
    for name, rows in others.items():
        cells = [" / ".join(f"{row[column]:.4f}" for row in rows) for column in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _describe_rise(name: str, found: dict[str, Any]) -> str:
    """Describe the change of one column, with the change per seed."""
    changes = found["changes"]
    everywhere = all(change > 0 for change in changes)
    verdict = "rises with every seed" if everywhere else "no rise" if np.mean(changes) <= 0 else "not with every seed"
    of_seeds = ", ".join(f"{change:+.4f}" for change in changes)
    return f"{name} {found['first']:.4f} to {found['last']:.4f} ({of_seeds}: {verdict})"


if __name__ == "__main__":
    sys.exit(main())
