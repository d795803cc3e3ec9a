"""Ablation of the training recipe: one change at a time, equal epochs, several seeds, in one table.

    python benchmarks/recipe.py [--seeds 3] [--only NAME ...]
    python benchmarks/recipe.py --data <folder of diginetica files> --epochs 3
    python benchmarks/recipe.py --data <folder of diginetica files> --device cuda --jobs 12

Without --data the shop of `make demo` is simulated; with it, the files are Diginetica's. Variants are evaluated on the
last part of the training sessions, so that choices do not use the test days. Figures are means over seeds with their
range (largest minus smallest). A difference smaller than the range is within seed variance.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.events.read import read_events
from multitron_core.front.evaluation import front_table, front_volume
from multitron_core.front.measurement import measure_front
from multitron_core.model.folder import load_model
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.trainer import train

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "ours": {},
    "items of free norm": {"model": {"item_norm": "free"}},
    "ranked order loss alone": {"training": {"order_loss": "ordered_softmax"}},
    "dropout 0.1": {"model": {"dropout": 0.1}},
    "dropout 0.3": {"model": {"dropout": 0.3}},
    "ranked and binary order loss": {"training": {"order_loss": "ranked_bce"}},
    "binary order loss": {"training": {"order_loss": "bce"}},
    "binary order loss, free norm": {"training": {"order_loss": "bce"}, "model": {"item_norm": "free"}},
    "ordered steps alone (share 1.0)": {"training": {"ordered_share": 1.0}},
    "ordered share 0.8": {"training": {"ordered_share": 0.8}},
    "ordered share 0.5": {"training": {"ordered_share": 0.5}},
    "ordered share 0.15": {"training": {"ordered_share": 0.15}},
    "own clicks attended": {"model": {"own_clicks": "attended"}},
    "own clicks added": {"model": {"own_clicks": "added"}},
    "one pi a batch": {"training": {"pi_per": "batch"}},
    "collisions kept": {"training": {"collisions": "official"}},
    "positions from the end": {"model": {"positions": "end"}},
    "chronological": {"training": {"session_order": "chronological"}},
    "constant rate": {"training": {"schedule": "constant"}},
    "Xavier": {"model": {"initialisation": "xavier"}},
    "no regulariser": {"training": {"regulariser": "none"}},
    "released regulariser": {"training": {"regulariser": "released"}},
    "softmax in the regulariser": {"training": {"regulariser_g": "softmax"}},
    "cosine regulariser": {"training": {"regulariser": "cosine"}},
    "lambda 0.02": {"training": {"regularisation": 0.02}},  # the paper's grid: these and 0.2
    "lambda 0.5": {"training": {"regularisation": 0.5}},
    "lambda 1": {"training": {"regularisation": 1.0}},
    "smooth Chebyshev": {"training": {"scalarisation": "chebyshev"}},
    "lazy Adam": {"training": {"optimiser": "lazy_adam"}},
    "bfloat16 autocast": {"training": {"precision": "bfloat16"}},
    "popularity corrected": {"training": {"popularity_correction": 1.0}},
    "half popularity corrected": {"training": {"popularity_correction": 0.5}},
    "16,384 uniform negatives": {"training": {"uniform_negatives": 16_384}},
    "1,024 uniform negatives": {"training": {"uniform_negatives": 1_024}},
    "25 negatives kept": {"training": {"kept_negatives": 25}},
    "400 negatives kept": {"training": {"kept_negatives": 400}},
    "128 sessions a batch": {"training": {"batch_sessions": 128}},
    "512 sessions a batch": {"training": {"batch_sessions": 512}},
    "learning rate 5e-4": {"training": {"learning_rate": 5e-4}},
    "learning rate 2e-3": {"training": {"learning_rate": 2e-3}},
    "two layers": {"model": {"layers": 2}},
    "dimension 100": {"model": {"dimension": 100}},
}
MEASURED_PI = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN_PI = (0.0, 0.5, 1.0)
METRICS = ("click_recall_20", "order_recall_20", "order_density")


@dataclass(frozen=True)
class Held:
    """Training sessions split into a first part for training and a last part for evaluation."""

    train: EncodedSessions
    test: EncodedSessions
    vocabulary: Any


def held_out(data: PreparedSessions, share: float) -> Held:
    """Use the last share of the training sessions as test set. Items without training clicks always miss."""
    cut = int(len(data.train) * (1.0 - share))
    rows = np.arange(len(data.train))
    return Held(data.train.select(rows[:cut]), data.train.select(rows[cut:]), data.vocabulary)


def figures(data: Held, recipe: presets.Preset, folder: Path, device: str, whole_sessions: bool) -> dict[str, float]:
    """Train one variant with one seed: metrics at the measured preferences, hypervolume, processor seconds."""
    torch.set_num_threads(1)
    began = time.process_time()
    train(data, recipe, folder, device=device, progress=False)
    seconds = time.process_time() - began
    model = load_model(folder, device)
    measured = measure_front(model, data, MEASURED_PI, config=recipe.training, whole_sessions=whole_sessions)
    table = front_table(measured)
    found = {"hypervolume": front_volume(measured, resamples=1).normalised.value, "processor s": seconds}
    for row in table.iter_rows(named=True):
        found |= {f"{metric} at {row['pi_order']:.2f}": row[metric] for metric in METRICS}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Diginetica files; by default a shop is simulated")
    parser.add_argument("--preset", help="preset; by default diginetica with --data and demo without")
    parser.add_argument("--epochs", type=int, help="number of epochs instead of the preset's")
    parser.add_argument(
        "--training", type=json.loads, default={}, metavar="JSON", help="training settings of all variants"
    )
    parser.add_argument("--model", type=json.loads, default={}, metavar="JSON", help="model settings of all variants")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the training sessions for evaluation")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), metavar="NAME", help="only these variants")
    parser.add_argument("--whole-sessions", action="store_true", help="see `python -m multitron_core.front --help`")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--jobs", type=int, default=1, help="parallel trainings, one process each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="a minute: 4,000 sessions, one epoch, two variants")
    options = parser.parse_args()
    sessions, items, names = 20_000, 2_000, options.only or list(VARIANTS)
    if options.small:
        sessions, items, options.seeds, options.epochs = 4_000, 500, 1, 1
        names = options.only or ["ours", "binary order loss, free norm"]
    base = presets.named(options.preset or ("diginetica" if options.data else "demo"))
    changes: dict[str, Any] = {"validation_share": 0.0, "threads": 1}
    changes |= options.training | ({"epochs": options.epochs} if options.epochs else {})
    base = base.changed(model=options.model, training=changes)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        if options.data:
            log, format = read_events(options.data, "diginetica"), "diginetica"
        else:
            simulate(Path(temporary) / "raw", sessions=sessions, items=items, days=8)
            log, format = read_events(Path(temporary) / "raw", "table"), "table"
        data = held_out(prepare_sessions(log, format), options.held_out)
        print(f"train {len(data.train):,} sessions, evaluate {len(data.test):,}; {base.training.epochs} epochs")
        for row in evaluate_baselines(data.train, data.test).iter_rows(named=True):
            print(f"  {row['baseline']:<36} click {row['click_recall_20']:.4f}  order {row['order_recall_20']:.4f}")
        processes = ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn"))
        jobs = {
            name: [
                processes.submit(
                    figures,
                    data,
                    base.changed(**VARIANTS[name]).changed(training={"seed": seed}),
                    Path(temporary) / f"{number}-{seed}",
                    options.device,
                    options.whole_sessions,
                )
                for seed in range(1, options.seeds + 1)
            ]
            for number, name in enumerate(names)
        }
        for name in names:
            found = [job.result() for job in jobs[name]]
            means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
            spreads = {f"{key}, spread": float(np.ptp([one[key] for one in found])) for key in found[0]}
            rows.append({"variant": name, **means, **spreads})
            print(f"  {name}: {means['processor s']:.0f} processor s per seed", flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=2))
    print(_markdown(rows))
    return 0


def _markdown(rows: list[dict[str, Any]]) -> str:
    """Markdown table of the means; after each group of columns, the largest range over seeds within it."""
    groups = {"click recall@20": "click_recall_20", "order recall@20": "order_recall_20", "density": "order_density"}
    pis = " / ".join(f"{pi:.2f}" for pi in SHOWN_PI)
    lines = [f"| pi {pis} | " + " | ".join(groups) + " | hypervolume |", "|---" * (len(groups) + 2) + "|"]
    for row in rows:
        cells = []
        for metric in groups.values():
            keys = [f"{metric} at {pi:.2f}" for pi in SHOWN_PI]
            spread = max(row[f"{key}, spread"] for key in keys)
            cells.append(" / ".join(f"{row[key]:.4f}" for key in keys) + f" ± {spread:.4f}")
        cells.append(f"{row['hypervolume']:.3f} ± {row['hypervolume, spread']:.3f}")
        lines.append(f"| {row['variant']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
