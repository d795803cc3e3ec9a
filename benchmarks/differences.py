"""What this project does otherwise than the official code beside training, each difference measured both ways.

    python benchmarks/differences.py --data <folder of diginetica files> --model MODEL --sessions <prepared sessions>
    python benchmarks/differences.py --small                         # a simulated shop, trained for one epoch first

Printed is a markdown row a difference: what was measured, the figure here and the figure by the official code's rule,
on the same files, sessions and ranks. These rules are (otto-de/MultiTRON, `src/`):

- a metric is the mean of its batches' ratios; a batch without an ordered target counts as order recall 0. The front of
  a small data set repeats the test sessions 256 times, so its batches begin everywhere, and none is incomplete;
- elsewhere the last, incomplete batch of 256 sessions is dropped;
- times are read as the machine's local ones, and the test days begin a number of seconds before its last midnight;
- every session is padded to 50 clicks;
- OTTO's embedding has a row for each clicked item, and is read at the raw id + 1;
- validation draws a preference for each batch, and negatives, anew each time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import torch

from multitron_core.events.formats import get_format
from multitron_core.events.read import read_events
from multitron_core.front.files import model_and_test
from multitron_core.front.measurement import FrontMeasurement, measure_front
from multitron_core.model.description import ModelDescription
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import preference
from multitron_core.sessions.batches import epoch_order, make_batch, rectangles, training_rows
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig
from multitron_core.training.data import split_rows
from multitron_core.training.devices import search_dtype
from multitron_core.training.step import StepLosses, losses_of, table_rows
from multitron_core.training.step_inputs import rectangle_overhead
from multitron_core.training.trainer import train
from multitron_core.training.validation import HeldOut

FORMAT = "diginetica"
BATCH = 256  # sessions, of the official code
PADDED = 50  # clicks a session there
REPEATS = 256  # of the test sessions in the front of a small data set there
K = 20
ZONES = ("Europe/Berlin", "America/Los_Angeles")
VALIDATION_SHARE = 0.02  # where the model was trained without validation


@dataclass(frozen=True)
class Row:
    """A difference, measured: the figures here and by the official rule, as text."""

    difference: str
    figure: str
    here: str
    official: str


class Trained(NamedTuple):
    """A model, its recipe, the share of its training targets with each event, and the losses that validation kept."""

    model: MultiTRON
    config: TrainingConfig
    rates: list[float]
    losses: list[float]  # an epoch each; empty where nothing was held out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Diginetica files")
    parser.add_argument("--model", type=Path, help="a model folder")
    parser.add_argument("--sessions", type=Path, help="the folder of prepared sessions that it was trained with")
    parser.add_argument("--draws", type=int, default=10, help="validations at random preferences")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument(
        "--small", action="store_true", help="a simulated shop of 4,000 sessions, trained for one epoch"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.small and None in (options.data, options.model, options.sessions):
        parser.error("give --data, --model and --sessions, or --small")
    with tempfile.TemporaryDirectory() as temporary:
        if options.small:
            options.data, options.model, options.sessions = _simulated(Path(temporary))
        began = time.process_time()
        rows = measured(options.data, options.model, options.sessions, options.draws)
    print("| difference | figure | here | by the official rule |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(dataclasses.astuple(row)) + " |")
    print(f"\n{time.process_time() - began:.0f} processor s")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
    return 0


def measured(data: Path, model_dir: Path, sessions: Path, draws: int) -> list[Row]:
    """All rows; the files in `data` are those that the sessions were prepared from."""
    model, config, test = model_and_test(model_dir, sessions)
    prepared = PreparedSessions.load(sessions)
    rates = ModelDescription.read(model_dir).extra["rates"]
    epochs = pl.read_parquet(model_dir / "metrics.parquet")
    trained = Trained(
        model,
        config,
        [rates[name] for name in model.config.objectives],
        epochs["validation_loss"].to_list() if "validation_loss" in epochs.columns else [],
    )
    front = measure_front(model, test, [0.0, 1.0], config=config)
    events = read_events(data, FORMAT).events.collect()
    return [
        ratios(front, len(test)),
        dropped_batch(front, len(test)),
        *time_zones(events, prepared),
        padding(prepared.train, config),
        embedding_rows(events, len(prepared.vocabulary)),
        validation_noise(trained, prepared, draws),
    ]


def ratios(front: FrontMeasurement, sessions: int) -> Row:
    """Corpus ratios against means of per-batch ratios, from the same ranks of the same sessions."""
    ours, theirs, without = [], [], 0.0
    for hits, steps in _by_session(front, sessions):
        batches = [_sums_of_batches(counts) for counts in (hits, steps)]
        ours.append(hits.sum() / steps.sum())
        theirs.append((batches[0] / np.maximum(batches[1], 1)).mean())
        without = float((batches[1] == 0).mean())  # of the last, the ordered ones
    return Row(
        "metrics are ratios of corpus sums / means of per-batch ratios",
        f"click recall@{K} at pi 0 and 1; order recall@{K} at pi 0 and 1",
        _recalls(ours),
        f"{_recalls(theirs)}; {without:.1%} of the batches have no ordered target",
    )


def dropped_batch(front: FrontMeasurement, sessions: int) -> Row:
    """Every session against whole batches alone, corpus ratios both."""
    kept = sessions - sessions % BATCH
    ours, theirs, totals = [], [], []
    for hits, steps in _by_session(front, sessions):
        ours.append(hits.sum() / steps.sum())
        theirs.append(hits[:kept].sum() / max(1, steps[:kept].sum()))
        totals.append((steps.sum(), steps[:kept].sum()))
    (steps, kept_steps), (ordered, kept_ordered) = totals[0], totals[-1]
    return Row(
        "every test session is evaluated / the last, smaller batch is dropped",
        "test sessions, steps, ordered steps; the same recalls",
        f"{sessions:,}, {steps:,}, {ordered:,}; {_recalls(ours)}",
        f"{kept:,}, {kept_steps:,}, {kept_ordered:,}; {_recalls(theirs)}",
    )


def time_zones(events: pl.DataFrame, prepared: PreparedSessions) -> list[Row]:
    """UTC against local time: as the files are, and moved by whole weeks until clocks go back in the test days."""
    utc = prepare_sessions(events, FORMAT)
    if utc.vocabulary.hash != prepared.vocabulary.hash:
        raise SystemExit("the sessions were not prepared from these files")
    midnight = datetime.fromisoformat(utc.statistics["split"]) + timedelta(days=get_format(FORMAT).rules.split.days)
    rows = []
    for title, moved in (("as they are", False), ("moved to where clocks go back in the test days", True)):
        cells = []
        for zone in ZONES:
            weeks = _weeks_to_change(midnight, zone) if moved else 0
            local = prepare_sessions(in_local_time(events, zone, midnight, weeks), FORMAT)
            sides, places = _moved_sessions(utc, local)
            cells.append(f"{zone}{f' (+{weeks} weeks)' if moved else ''} {sides:,}, {places:,}")
        rows.append(
            Row(
                "times are UTC / local",
                f"sessions that change between train and test, and that change their place within; dates {title}",
                "0, 0",
                "; ".join(cells),
            )
        )
    return rows


def in_local_time(events: pl.DataFrame, zone: str, midnight: datetime, weeks: int) -> pl.DataFrame:
    """The events as a machine in `zone` reads them, on an axis where its last midnight is that of UTC.

    The files name no zone. Such a machine takes their times for its own; a time that its clocks leave out counts on
    from the hour before. `prepare_sessions` then splits whole days of 86,400 s before the local midnight, as it does
    there.

    Args:
        events: the log, in UTC.
        zone: of the machine.
        midnight: before the last session's start, in UTC.
        weeks: that all dates are moved on by.
    """
    local_midnight = (midnight + timedelta(weeks=weeks)).replace(tzinfo=ZoneInfo(zone))
    named = pl.col("ts").dt.replace_time_zone(None) + pl.duration(weeks=weeks)
    ts = _instant(named, zone).fill_null(_instant(named - pl.duration(days=1), zone) + pl.duration(days=1))
    back = timedelta(seconds=midnight.timestamp() - local_midnight.timestamp())
    return events.with_columns(ts=(ts + back).cast(events.schema["ts"]))


def padding(sessions: EncodedSessions, config: TrainingConfig) -> Row:
    """Cells of one epoch's batches that hold no click."""
    rows = training_rows(sessions)
    order = epoch_order(rows, config.data.session_order, config.data.seed, 0)
    real, cells = 0, {"cpu": 0, "cuda": 0}
    for first in range(0, len(order), config.data.batch_sessions):
        batch = make_batch(sessions, order[first : first + config.data.batch_sessions], PADDED)
        real += len(batch.inputs)
        for device in cells:
            parts = rectangles(batch, rectangle_overhead(torch.device(device)))
            cells[device] += sum(part.source.size for part in parts)
    whole = PADDED * len(rows)
    return Row(
        "sessions grouped by length / padded to 50",
        "share of an epoch's cells that are padding; cells for one click that is read",
        f"{1 - real / cells['cpu']:.1%}, {cells['cpu'] / real:.2f} (one rectangle a batch, as on a GPU: "
        f"{1 - real / cells['cuda']:.1%}, {cells['cuda'] / real:.2f})",
        f"{1 - real / whole:.1%}, {whole / real:.2f}",
    )


def embedding_rows(events: pl.DataFrame, vocabulary: int) -> Row:
    """Rows of the embedding, and clicks of items that have none, by the vocabulary and by OTTO's rule."""
    clicked = events.filter(pl.col("event_type") == "click")["item_id"]
    items, largest = clicked.n_unique(), int(clicked.to_numpy().max())
    beyond = int((clicked + 1 > items).sum())
    return Row(
        "items counted from the vocabulary / raw ids (there for OTTO alone)",
        "rows of the embedding, padding's included; clicks of items that have none",
        f"{vocabulary + 1:,}; 0",
        f"{items + 1:,} for {items:,} clicked items, where the largest raw id needs {largest + 2:,}; {beyond:,}",
    )


def validation_noise(trained: Trained, prepared: PreparedSessions, draws: int) -> Row:
    """The spread of one model's validation loss over validations, at fixed and at drawn preferences."""
    model, config, rates, losses = trained
    _, held_out = split_rows(prepared.train, config.validation.validation_share or VALIDATION_SHARE)
    search = search_dtype(config.negatives.negative_search, torch.device("cpu"))
    step_losses = StepLosses.of(config, model.config.objectives, rates, search)
    ours = HeldOut(prepared.train, held_out, config, step_losses)
    rows = training_rows(prepared.test)
    theirs = HeldOut(prepared.test, rows[: len(rows) - len(rows) % BATCH], config, step_losses)
    model.eval()
    fixed = [_fixed_loss(model, ours) for _ in range(2)]
    spreads = []
    for sessions, what in ((ours, "the same sessions"), (theirs, "the test sessions, as there")):
        found = [_drawn_loss(model, sessions, seed) for seed in range(draws)]
        spreads.append(f"{np.std(found, ddof=1):.4f}, {np.ptp(found):.4f} ({what}: {len(sessions.rows):,})")
    last = f"; the last two epochs differ by {abs(losses[-1] - losses[-2]):.4f}" if len(losses) > 1 else ""
    return Row(
        "validation at fixed pi with a fixed seed / pi and negatives drawn anew",
        f"standard deviation and range of one model's validation loss over {draws} validations{last}",
        f"{np.std(fixed):.4f}, {np.ptp(fixed):.4f}",
        "; ".join(spreads),
    )


def _by_session(front: FrontMeasurement, sessions: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hits and steps of each session, int64 [sessions]: of clicks at both preferences, then of orders at both."""
    session = front.steps["session"].to_numpy()
    found = []
    for counts in (np.ones(len(session), dtype=bool), front.steps["ordered"].to_numpy()):
        for ranks in front.ranks:
            hits = np.bincount(session[counts & (ranks <= K)], minlength=sessions)
            found.append((hits, np.bincount(session[counts], minlength=sessions)))
    return found


def _sums_of_batches(counts: np.ndarray) -> np.ndarray:
    """Sums of consecutive sessions, the sessions repeated as the official front repeats them."""
    return np.tile(counts, REPEATS).reshape(-1, BATCH).sum(axis=1)


def _recalls(values: list[float]) -> str:
    click, order = values[:2], values[2:]
    return "; ".join(" and ".join(f"{value:.4f}" for value in pair) for pair in (click, order))


def _instant(named: pl.Expr, zone: str) -> pl.Expr:
    """Local times as instants; null for one that the zone's clocks leave out, the earlier for one they show twice."""
    local = named.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _weeks_to_change(midnight: datetime, zone: str) -> int:
    """The least number of weeks to move a log on by for its zone's clocks to go back within its last week."""

    def offset(day: datetime) -> timedelta:
        return day.replace(tzinfo=ZoneInfo(zone)).utcoffset() or timedelta()

    weeks = 0
    while offset(midnight + timedelta(weeks=weeks)) >= offset(midnight + timedelta(weeks=weeks - 1)):
        weeks += 1
    return weeks


def _moved_sessions(one: PreparedSessions, other: PreparedSessions) -> tuple[int, int]:
    """Sessions that are of train in one and of test in the other, and sessions whose order on a side differs."""
    train = [part.train.session_ids for part in (one, other)]
    test = [part.test.session_ids for part in (one, other)]
    sides = sum(int(a.is_in(b.implode()).sum()) for a, b in ((train[0], test[1]), (test[0], train[1])))
    places = 0
    for first, second in (train, test):
        common = first.filter(first.is_in(second.implode())), second.filter(second.is_in(first.implode()))
        places += int((common[0] != common[1]).sum())
    return sides, places


def _fixed_loss(model: MultiTRON, held_out: HeldOut) -> float:
    """The mean over `validation_pi` of the scalarised loss, as `validation.validate` has it."""
    found = []
    for key in held_out.config.validation.validation_pi:
        pi = np.asarray(preference(key, len(model.config.objectives)), dtype=np.float32)
        found.append(_mean_loss(model, held_out, [pi]))
    return float(np.mean(found))


def _drawn_loss(model: MultiTRON, held_out: HeldOut, seed: int) -> float:
    """The scalarised loss at a preference a batch, drawn as in training, with negatives of this seed."""
    random = np.random.default_rng(seed)
    batches = -(-len(held_out.rows) // held_out.config.data.batch_sessions)
    pi = random.dirichlet(held_out.config.data.beta, size=batches).astype(np.float32)
    return _mean_loss(model, replace(held_out, config=held_out.config.changed(seed=1000 + seed)), list(pi))


@torch.no_grad()
def _mean_loss(model: MultiTRON, held_out: HeldOut, preferences: list[np.ndarray]) -> float:
    """The mean over steps of the scalarised loss; a preference for each batch in turn."""
    total, steps = 0.0, 0
    for number, inputs in enumerate(held_out.batches(model, preferences[0])):
        pi = torch.from_numpy(preferences[number % len(preferences)]).expand_as(inputs.pi)
        losses = losses_of(model, *table_rows(model, inputs), replace(inputs, pi=pi), held_out.losses)
        total += float(held_out.losses.scalarise(losses, pi[inputs.negatives.session_of_step]).sum())
        steps += len(losses)
    return total / steps


def _simulated(folder: Path) -> tuple[Path, Path, Path]:
    """Files, model folder and prepared sessions of a small shop."""
    simulate(folder / "raw", sessions=4_000, items=500, days=28, format=FORMAT)
    data = prepare_sessions(read_events(folder / "raw", FORMAT), FORMAT)
    data.save(folder / "sessions")
    train(data, presets.demo().changed(training={"epochs": 1}), folder / "model", progress=False)
    return folder / "raw", folder / "model", folder / "sessions"


if __name__ == "__main__":
    sys.exit(main())
