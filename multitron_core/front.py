"""The front: what every preference costs and gives, measured on held-out sessions.

    python -m multitron_core.front --model MODEL --sessions SESSIONS

prints a row a preference, how steadily losses and metrics follow the preference, what they change over the points that
no other dominates, the hypervolumes, with intervals, and the operating point that a business constraint leads to.
--save keeps table and pictures in the model folder, --record the operating point.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import polars as pl

from multitron_core.bootstrap import Interval
from multitron_core.config import TrainingConfig
from multitron_core.devices import pick_device
from multitron_core.display import as_table
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import InputError, MultitronError
from multitron_core.front_change import front_change, worthwhile_ends
from multitron_core.front_measurement import (
    FrontMeasurement,
    HasTest,
    Measuring,
    check_list_length,
    measure_front,
)
from multitron_core.hypervolume import (
    FrontVolume,
    bootstrap_hypervolume,
    dominated,
    hypervolume,
    normalised_hypervolume,
)
from multitron_core.metrics import ranking_metrics
from multitron_core.model import MultiTRON, load_model
from multitron_core.model_folder import training_config
from multitron_core.objectives import LABELS
from multitron_core.operating_point import OperatingPoint, choose_operating_point, record_operating_point
from multitron_core.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.spacing import lattice_preferences, spaced_preferences

__all__ = [
    "FrontMeasurement",
    "OperatingPoint",
    "choose_operating_point",
    "evaluate_front",
    "evaluate_points",
    "extremes",
    "front_change",
    "front_preferences",
    "front_table",
    "front_volume",
    "hypervolume",
    "measure_front",
    "monotony",
    "normalised_hypervolume",
    "off_course",
    "spaced_preferences",
]


def front_table(measurement: FrontMeasurement, *, k: int = 20) -> pl.DataFrame:
    """A row a preference, rising in pi_order.

    Returns:
        `pi_order`, `pi_click`; `click_loss`, `order_loss` (means over steps, in nats), and the same of further
        objectives; the metrics of `metrics.ranking_metrics`; `dominated` (another point is no worse in all losses and
        better in one); `ranks_trained` (see `FrontMeasurement`); `steps`, `ordered_steps`, `carted_steps`.

    Raises:
        InputError: lists longer than ranks are exact.
    """
    check_list_length(k)
    means = measurement.losses.mean(axis=1, dtype=np.float64)
    beaten = dominated(means)
    names = [objective.name for objective in measurement.objectives]
    ranks_trained = measurement.ranks_trained
    labels = [label for label in LABELS.values() if label in measurement.steps.columns]
    rows: list[dict[str, object]] = []
    for point, pi in enumerate(measurement.pi):
        ranked = measurement.steps.with_columns(pl.Series("rank", measurement.ranks[point]))
        rows.append(
            {
                **{f"pi_{name}": float(weight) for name, weight in zip(reversed(names), reversed(pi), strict=True)},
                **{f"{name}_loss": float(loss) for name, loss in zip(names, means[point], strict=True)},
                **ranking_metrics(ranked, k=k),
                "dominated": bool(beaten[point]),
                "ranks_trained": bool(ranks_trained[point]),
                "steps": len(ranked),
                **{f"{label}_steps": int(ranked[label].sum()) for label in reversed(labels)},
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def front_volume(
    measurement: FrontMeasurement,
    *,
    reference: Sequence[float] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1,
) -> FrontVolume:
    """Normalised and raw hypervolume with bootstrap intervals by session.

    Args:
        measurement: what `measure_front` gave.
        reference: of the raw hypervolume, a loss an objective; by default the losses of a model that knows nothing (ln
            of the number of candidates for a loss that ranks, ln 2 for "bce", their sum for both).
        resamples, level, seed: of the bootstrap.
    """
    _, sessions = np.unique(measurement.steps["session"].to_numpy(), return_inverse=True)
    counts = np.bincount(sessions)
    points, _, k = measurement.losses.shape
    sums = np.empty((len(counts), points, k))
    for point in range(points):
        for j in range(k):
            sums[:, point, j] = np.bincount(sessions, weights=measurement.losses[point, :, j])
    return bootstrap_hypervolume(
        sums,
        counts,
        measurement.reference if reference is None else reference,
        resamples=resamples,
        level=level,
        seed=seed,
    )


def evaluate_points(
    model: MultiTRON,
    dataset: EncodedSessions | HasTest,
    preferences: Sequence[float] | Sequence[Sequence[float]],
    *,
    k: int = 20,
    **measuring: Unpack[Measuring],
) -> pl.DataFrame:
    """The rows of `front_table` for given preferences; arguments as in `measure_front`."""
    return front_table(measure_front(model, dataset, preferences, **measuring), k=k)


def evaluate_front(
    model: MultiTRON,
    dataset: EncodedSessions | HasTest,
    points: int = 26,
    *,
    spacing: Literal["beta", "square"] = "beta",
    beta: Sequence[float] | None = None,
    k: int = 20,
    **measuring: Unpack[Measuring],
) -> pl.DataFrame:
    """One row a preference: `front_table` at the preferences of `front_preferences`.

    Args:
        points, spacing: how many, and where they lie, with `beta` (that of `config` when None).
        k: the length of the lists.
        model, dataset, measuring: see `measure_front`.
    """
    if beta is None:
        beta = measuring["config"].beta
    preferences = front_preferences(model, points, spacing=spacing, beta=beta)
    return evaluate_points(model, dataset, preferences, k=k, **measuring)


def front_preferences(
    model: MultiTRON, points: int, *, spacing: Literal["beta", "square"], beta: Sequence[float]
) -> list[tuple[float, ...]]:
    """The preferences of a front of at least so many points: `spaced_preferences`, or for three objectives and more
    `lattice_preferences`."""
    objectives = len(model.config.objectives)
    if objectives > 2:
        return lattice_preferences(points, objectives)
    return [(1.0 - order, order) for order in spaced_preferences(points, spacing=spacing, beta=beta)]


EXPECTED = {"click_loss": "rising", "click_recall": "falling", "order_loss": "falling", "order_recall": "rising"}
"""Which way losses and recalls should go as pi_order rises."""


def monotony(front: pl.DataFrame) -> pl.DataFrame:
    """How steadily the columns of `EXPECTED` follow the weight on orders.

    Args:
        front: what `evaluate_front` gives.

    Returns:
        `column`, `expected`; `first` and `last`, its values at the smallest and the largest weight; `right_way`, the
        share of steps from one point to the next that go the expected way or nowhere; `worst_reversal`, the furthest
        that the column falls back behind a point already reached, in its own unit (0: it never does).
    """
    front = front.sort("pi_order")
    rows = []
    for start, expected in EXPECTED.items():
        for column in front.columns:
            if not column.startswith(start) or front[column].null_count():
                continue
            values = front[column].to_numpy() * (1.0 if expected == "rising" else -1.0)
            steps = np.diff(values)
            rows.append(
                {
                    "column": column,
                    "expected": expected,
                    "first": float(front[column][0]),
                    "last": float(front[column][-1]),
                    "right_way": float((steps >= 0.0).mean()) if len(steps) else 1.0,
                    "worst_reversal": float((np.maximum.accumulate(values) - values).max()),
                }
            )
    return pl.DataFrame(rows)


def off_course(front: pl.DataFrame, *, tolerance: float = 0.1) -> pl.DataFrame:
    """The losses that do not follow the preference: rows of `monotony` that fall back too far.

    Only points count that no other dominates and whose ranks were trained: the first points of a front are often
    dominated, in the paper's pictures too, and nobody should choose them.

    Args:
        front: what `evaluate_front` gives.
        tolerance: how far a loss may fall back, as a share of its range over these points.

    Returns:
        As `monotony`; empty where both losses go the way that they should.
    """
    worthwhile = front.filter(~pl.col("dominated") & pl.col("ranks_trained"))
    if worthwhile.is_empty():
        return monotony(front).clear()
    rows = monotony(worthwhile).filter(pl.col("column").str.ends_with("_loss"))
    ranges = [float(np.ptp(worthwhile[name].to_numpy())) for name in rows["column"]]
    return rows.filter(pl.col("worst_reversal") > tolerance * pl.Series(ranges, dtype=pl.Float64))


def extremes(front: pl.DataFrame) -> pl.DataFrame:
    """Whether the ends of a front, where one objective has all the weight, are best at their own objective.

    Args:
        front: what `evaluate_front` gives, its ends included.

    Returns:
        A row an objective: `objective`; `loss`, its loss at its own end; `best_loss` of all points; `recall` and
        `best_recall`, the same of its recall.
    """
    k = _list_length(front)
    rows = []
    for name in _objectives(front):
        end = front.filter(pl.col(f"pi_{name}") == 1.0)
        if end.is_empty():
            raise InputError(
                "the front lacks an end",
                where=f"a point with pi_{name} = 1",
                mend="measure the ends of the front too",
            )
        recall = front[f"{name}_recall_{k}"]
        rows.append(
            {
                "objective": name,
                "loss": end[f"{name}_loss"][0],
                "best_loss": front[f"{name}_loss"].min(),
                "recall": end[recall.name][0],
                "best_recall": recall.max(),
            }
        )
    return pl.DataFrame(rows)


def _objectives(front: pl.DataFrame) -> list[str]:
    return [name.removeprefix("pi_") for name in reversed(front.columns) if name.startswith("pi_")]


def _list_length(front: pl.DataFrame) -> str:
    return next(name.removeprefix("click_recall_") for name in front.columns if name.startswith("click_recall_"))


VOLUME_FILE = "hypervolume.json"


def save_front(front: pl.DataFrame, volume: FrontVolume, model_dir: Path | str) -> None:
    """Keep a front with its model: `front.parquet`, `hypervolume.json`, `front.png`, `front_metrics.png`, between
    clicks and orders `front_beside_paper.png`, and of a model that was trained here its losses by epoch,
    `training.png`.

    Each file is replaced whole.
    """
    from multitron_core import pictures  # only who draws waits for matplotlib

    model_dir = Path(model_dir)
    table = io.BytesIO()
    front.write_parquet(table)
    contents = {
        "front.parquet": table.getvalue(),
        VOLUME_FILE: json.dumps(dataclasses.asdict(volume), indent=2).encode(),
    }
    if len(_objectives(front)) == 2:
        published = {f"paper, {name}": paper_front(name) for name in PAPER_FRONTS}
        contents |= {
            "front.png": pictures.front_picture(front),
            "front_metrics.png": pictures.metrics_picture(front),
            "front_beside_paper.png": pictures.compare_fronts({"this model": front, **published}),
        }
    else:
        contents |= {"front.png": pictures.pairs_picture(front), "front_metrics.png": pictures.simplex_picture(front)}
    epochs = model_dir / "metrics.parquet"
    if epochs.exists() and len(history := pl.read_parquet(epochs)):
        contents["training.png"] = pictures.training_curves(history)
    for name, content in contents.items():
        temporary = model_dir / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        os.replace(temporary, model_dir / name)


def front_text(
    measurement: FrontMeasurement,
    front: pl.DataFrame,
    volume: FrontVolume,
    point: OperatingPoint,
    *,
    k: int = 20,
    seed: int = 1,
) -> str:
    """What the commands print of a front.

    Args:
        measurement, front, volume, point: what was measured, its `front_table`, `front_volume` and operating point.
        k, seed: the length of the lists, and the seed of the bootstrap.

    Raises:
        InputError: between two objectives, no point is worth choosing (`front_change.worthwhile_ends`).
    """
    if len(measurement.objectives) == 2:
        first, last = (measurement.pi[end, 1] for end in worthwhile_ends(measurement))
        about = [
            as_table(monotony(front)),
            f"from pi_order {first:.4f} to {last:.4f}, the first and the last point that no other dominates and whose",
            "ranks were trained, the change with its bootstrap interval by session (95 %):",
            as_table(front_change(measurement, k=k, seed=seed)),
        ]
    else:
        about = [as_table(extremes(front))]
    labelled = [name.removesuffix("_steps") for name in front.columns if name.endswith("ed_steps")]
    return "\n".join(
        [
            as_table(front.select(pl.exclude("^.*steps$"))),
            *about,
            f"{front['steps'][0]} steps; " + ", ".join(f"{front[f'{name}_steps'][0]} {name}" for name in labelled),
            f"hypervolume, normalised by the front's own smallest and largest losses: {volume.normalised}",
            f"hypervolume, raw, reference point {volume.reference}: {volume.raw}",
            f"points that no other dominates: {front.height - front['dominated'].sum()} of {front.height}",
            f"operating point: pi {point.pi_key} gives {point.objective} {point.value:.4f} "
            f"and costs {point.click_recall_loss:.4f} click recall (allowed {point.max_click_recall_loss})",
        ]
    )


def kept_volume(model_dir: Path | str) -> FrontVolume:
    """The hypervolumes that `save_front` kept.

    Raises:
        InputError: there are none.
    """
    path = Path(model_dir) / VOLUME_FILE
    try:
        kept = json.loads(path.read_text())
        return FrontVolume(Interval(**kept["normalised"]), Interval(**kept["raw"]), tuple(kept["reference"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the front was not measured", where=path, found=str(error), mend="measure the model's front first"
        ) from error


def model_and_test(
    model_dir: Path, sessions: Path, device: str = "cpu"
) -> tuple[MultiTRON, TrainingConfig, EncodedSessions]:
    """A model, how it was trained, and test sessions that were encoded with its vocabulary.

    Raises:
        InputError: the model folder or the sessions cannot be read, or do not belong together.
    """
    model = load_model(model_dir, device)
    described = json.loads((model_dir / "config.json").read_text())
    test = EncodedSessions.load(sessions / "test")
    if test.vocabulary_hash != described.get("vocabulary_hash"):
        raise InputError(
            "the sessions were encoded with another vocabulary than the model's",
            where=sessions,
            found=test.vocabulary_hash,
            mend="evaluate on the sessions that were prepared for this model",
        )
    return model, training_config(model_dir), test


def main(arguments: list[str] | None = None) -> int:
    """Print a front; 1 when something has to be mended."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.front", description="Measure a model's front.")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--sessions", type=Path, required=True, help="folder of prepared sessions; its test/ is taken")
    parser.add_argument("--points", type=int, default=26, help="at least; three objectives take a lattice")
    parser.add_argument("--spacing", choices=("beta", "square"), default="beta")
    parser.add_argument("--k", type=int, default=20, help="length of the lists")
    parser.add_argument("--click-loss", choices=("sampled", "exact"), default="sampled")
    parser.add_argument("--repeats", type=int, default=1, help="draws of negatives")
    parser.add_argument("--seed", type=int, default=1, help="of the negatives and of the bootstrap")
    parser.add_argument(
        "--reference", type=float, nargs="+", help="reference point of the raw hypervolume, a loss an objective"
    )
    parser.add_argument(
        "--whole-sessions",
        action="store_true",
        help="of a model whose positions count from the end: steps know how many clicks follow (official evaluation)",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--objective", default="order_density", help="what the operating point is chosen for")
    parser.add_argument("--max-click-recall-loss", type=float, default=0.02, help="click recall that it may cost")
    parser.add_argument("--record", metavar="NAME", help="record the operating point in the model folder as NAME")
    parser.add_argument("--save", action="store_true", help="keep the table and its pictures in the model folder")
    given = parser.parse_args(arguments)
    try:
        check_list_length(given.k)  # before what takes minutes
        model, config, test = model_and_test(given.model, given.sessions, pick_device(given.device))
        measurement = measure_front(
            model,
            test,
            front_preferences(model, given.points, spacing=given.spacing, beta=config.beta),
            config=config,
            click_loss_mode=given.click_loss,
            repeats=given.repeats,
            seed=given.seed,
            whole_sessions=given.whole_sessions,
        )
        front = front_table(measurement, k=given.k)
        volume = front_volume(measurement, reference=given.reference, seed=given.seed)
        point = choose_operating_point(
            front, given.objective, given.max_click_recall_loss, click_recall=f"click_recall_{given.k}"
        )
        text = front_text(measurement, front, volume, point, k=given.k, seed=given.seed)
        if given.save:
            save_front(front, volume, given.model)
        if given.record:
            record_operating_point(point, given.model, name=given.record)
    except MultitronError as error:
        print(error, file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
