"""Differences from the official code outside training, each measured with both rules.

    python benchmarks/differences.py --data <folder of diginetica files> --model MODEL --sessions <prepared sessions>
    python benchmarks/differences.py --small                         # a simulated shop, trained for one epoch first

Prints one Markdown row per difference: the measured quantity, its value by this project's rule and by the rule of the
official code, on the same files, sessions and ranks. The official rules (otto-de/MultiTRON, `src/`):

- A metric is the mean of its batches' ratios; a batch without ordered targets counts as order recall 0. For small data
  sets the test sessions are repeated 256 times, so that batches start at every session and none is incomplete.
- Otherwise the last, incomplete batch of 256 sessions is dropped.
- Times are read as local time of the machine, and the test days start a number of seconds before its last midnight.
- Every session is padded to 50 clicks.
- The embedding for OTTO has one row per clicked item and is indexed by raw id + 1.
- Validation draws a preference per batch, and new negatives each time.
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
from multitron_core.losses.scalarisation import scalarisation
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
from multitron_core.training.step_inputs import rectangle_overhead
from multitron_core.training.trainer import train
from multitron_core.training.validation import HeldOut

FORMAT = "diginetica"
BATCH = 256  # sessions per batch in the official code
PADDED = 50  # clicks per session in the official code
REPEATS = 256  # repetitions of the test sessions for small data sets in the official code
K = 20
ZONES = ("Europe/Berlin", "America/Los_Angeles")
VALIDATION_SHARE = 0.02  # for a model that was trained without validation


@dataclass(frozen=True)
class Row:
    """One measured difference; figures as text, by this project's rule (`here`) and by the official one."""

    difference: str
    figure: str
    here: str
    official: str


class Trained(NamedTuple):
    """A model, its training config, the share of training targets with each event, and its validation losses."""

    model: MultiTRON
    config: TrainingConfig
    rates: list[float]
    losses: list[float]  # one per epoch; empty without validation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Diginetica files")
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--sessions", type=Path, help="folder of the prepared sessions that it was trained on")
    parser.add_argument("--draws", type=int, default=10, help="number of validations at random preferences")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument(
        "--small", action="store_true", help="a simulated shop of 4,000 sessions, trained for one epoch"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.small and None in (options.data, options.model, options.sessions):
        parser.error("pass --data, --model and --sessions, or --small")
    with tempfile.TemporaryDirectory() as temporary:
        if options.small:
            options.data, options.model, options.sessions = _simulated(Path(temporary))
        began = time.process_time()
        rows = measured(options.data, options.model, options.sessions, options.draws)
    print("| difference | figure | this project | official rule |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(dataclasses.astuple(row)) + " |")
    print(f"\n{time.process_time() - began:.0f} processor s")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
    return 0


def measured(data: Path, model_dir: Path, sessions: Path, draws: int) -> list[Row]:
    """All rows. `data` holds the raw files that the sessions were prepared from."""
    model, config, test = model_and_test(model_dir, sessions)
    prepared = PreparedSessions.load(sessions)
    rates = json.loads((model_dir / "config.json").read_text())["rates"]
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
    """Corpus ratios against means of per-batch ratios, from the same ranks."""
    ours, theirs, without = [], [], 0.0
    for hits, steps in _by_session(front, sessions):
        batches = [_sums_of_batches(counts) for counts in (hits, steps)]
        ours.append(hits.sum() / steps.sum())
        theirs.append((batches[0] / np.maximum(batches[1], 1)).mean())
        without = float((batches[1] == 0).mean())  # of the last iteration, which is about orders
    return Row(
        "metrics are ratios of corpus sums / means of per-batch ratios",
        f"click recall@{K} at pi 0 and 1; order recall@{K} at pi 0 and 1",
        _recalls(ours),
        f"{_recalls(theirs)}; {without:.1%} of the batches have no ordered target",
    )


def dropped_batch(front: FrontMeasurement, sessions: int) -> Row:
    """All sessions against complete batches only; corpus ratios in both cases."""
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
    """UTC against local time, with the original dates and with dates that put the end of DST into the test days."""
    utc = prepare_sessions(events, FORMAT)
    if utc.vocabulary.hash != prepared.vocabulary.hash:
        raise SystemExit("the sessions were not prepared from these files")
    midnight = datetime.fromisoformat(utc.statistics["split"]) + timedelta(days=get_format(FORMAT).rules.split.days)
    rows = []
    for title, moved in (("as they are", False), ("moved so that DST ends in the test days", True)):
        cells = []
        for zone in ZONES:
            weeks = _weeks_to_change(midnight, zone) if moved else 0
            local = prepare_sessions(in_local_time(events, zone, midnight, weeks), FORMAT)
            sides, places = _moved_sessions(utc, local)
            cells.append(f"{zone}{f' (+{weeks} weeks)' if moved else ''} {sides:,}, {places:,}")
        rows.append(
            Row(
                "times are UTC / local",
                f"sessions that change their split, and sessions that change their place within it; dates {title}",
                "0, 0",
                "; ".join(cells),
            )
        )
    return rows


def in_local_time(events: pl.DataFrame, zone: str, midnight: datetime, weeks: int) -> pl.DataFrame:
    """The events as a machine in `zone` reads them, shifted so that its last midnight is that of UTC.

    The files have no time zone, so the machine reads their times as local. A time in the gap at the start of DST
    continues from the hour before. `prepare_sessions` then splits at whole days of 86,400 s before local midnight, as
    the official code does.

    Args:
        events: Event log in UTC.
        zone: Time zone of the machine.
        midnight: Midnight before the start of the last session, in UTC.
        weeks: Number of weeks by which all dates are moved on.
    """
    local_midnight = (midnight + timedelta(weeks=weeks)).replace(tzinfo=ZoneInfo(zone))
    named = pl.col("ts").dt.replace_time_zone(None) + pl.duration(weeks=weeks)
    ts = _instant(named, zone).fill_null(_instant(named - pl.duration(days=1), zone) + pl.duration(days=1))
    back = timedelta(seconds=midnight.timestamp() - local_midnight.timestamp())
    return events.with_columns(ts=(ts + back).cast(events.schema["ts"]))


def padding(sessions: EncodedSessions, config: TrainingConfig) -> Row:
    """Share of padding in the cells of one epoch's batches."""
    rows = training_rows(sessions)
    order = epoch_order(rows, config.session_order, config.seed, 0)
    real, cells = 0, {"cpu": 0, "cuda": 0}
    for first in range(0, len(order), config.batch_sessions):
        batch = make_batch(sessions, order[first : first + config.batch_sessions], PADDED)
        real += len(batch.inputs)
        for device in cells:
            parts = rectangles(batch, rectangle_overhead(torch.device(device)))
            cells[device] += sum(part.source.size for part in parts)
    whole = PADDED * len(rows)
    return Row(
        "sessions grouped by length / padded to 50",
        "share of padding in the cells of an epoch; cells per click that is read",
        f"{1 - real / cells['cpu']:.1%}, {cells['cpu'] / real:.2f} (one rectangle per batch, as on a GPU: "
        f"{1 - real / cells['cuda']:.1%}, {cells['cuda'] / real:.2f})",
        f"{1 - real / whole:.1%}, {whole / real:.2f}",
    )


def embedding_rows(events: pl.DataFrame, vocabulary: int) -> Row:
    """Rows of the embedding, and clicks on items without a row, by vocabulary index and by the rule for OTTO."""
    clicked = events.filter(pl.col("event_type") == "click")["item_id"]
    items, largest = clicked.n_unique(), int(clicked.to_numpy().max())
    beyond = int((clicked + 1 > items).sum())
    return Row(
        "items indexed by the vocabulary / by raw id (official code: only for OTTO)",
        "rows of the embedding including padding; clicks on items without a row",
        f"{vocabulary + 1:,}; 0",
        f"{items + 1:,} for {items:,} clicked items; the largest raw id needs {largest + 2:,}; {beyond:,}",
    )


def validation_noise(trained: Trained, prepared: PreparedSessions, draws: int) -> Row:
    """Standard deviation of one model's validation loss over validations, at fixed and at drawn preferences."""
    model, config, rates, losses = trained
    _, held_out = split_rows(prepared.train, config.validation_share or VALIDATION_SHARE)
    search = search_dtype(config.negative_search, torch.device("cpu"))
    ours = HeldOut(prepared.train, held_out, config, rates, search)
    rows = training_rows(prepared.test)
    theirs = HeldOut(prepared.test, rows[: len(rows) - len(rows) % BATCH], config, rates, search)
    model.eval()
    fixed = [_fixed_loss(model, ours) for _ in range(2)]
    spreads = []
    for sessions, what in ((ours, "the same sessions"), (theirs, "the test sessions, as in the official code")):
        found = [_drawn_loss(model, sessions, seed) for seed in range(draws)]
        spreads.append(f"{np.std(found, ddof=1):.4f}, {np.ptp(found):.4f} ({what}: {len(sessions.rows):,})")
    last = f"; the last two epochs differ by {abs(losses[-1] - losses[-2]):.4f}" if len(losses) > 1 else ""
    return Row(
        "validation at fixed pi with a fixed seed / new pi and negatives for each validation",
        f"standard deviation and range of one model's validation loss over {draws} validations{last}",
        f"{np.std(fixed):.4f}, {np.ptp(fixed):.4f}",
        "; ".join(spreads),
    )


def _by_session(front: FrontMeasurement, sessions: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hits and steps per session, int64 [sessions]: for clicks at both preferences, then for orders at both."""
    session = front.steps["session"].to_numpy()
    found = []
    for counts in (np.ones(len(session), dtype=bool), front.steps["ordered"].to_numpy()):
        for ranks in front.ranks:
            hits = np.bincount(session[counts & (ranks <= K)], minlength=sessions)
            found.append((hits, np.bincount(session[counts], minlength=sessions)))
    return found


def _sums_of_batches(counts: np.ndarray) -> np.ndarray:
    """Sums per batch of consecutive sessions, with the repetitions of the official code."""
    return np.tile(counts, REPEATS).reshape(-1, BATCH).sum(axis=1)


def _recalls(values: list[float]) -> str:
    click, order = values[:2], values[2:]
    return "; ".join(" and ".join(f"{value:.4f}" for value in pair) for pair in (click, order))


def _instant(named: pl.Expr, zone: str) -> pl.Expr:
    """Local times in UTC; null in the gap at the start of DST, the earlier instant for ambiguous times."""
    local = named.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _weeks_to_change(midnight: datetime, zone: str) -> int:
    """Smallest number of weeks to move a log on so that DST of the zone ends within its last week."""

    def offset(day: datetime) -> timedelta:
        return day.replace(tzinfo=ZoneInfo(zone)).utcoffset() or timedelta()

    weeks = 0
    while offset(midnight + timedelta(weeks=weeks)) >= offset(midnight + timedelta(weeks=weeks - 1)):
        weeks += 1
    return weeks


def _moved_sessions(one: PreparedSessions, other: PreparedSessions) -> tuple[int, int]:
    """Number of sessions that are in train in one and in test in the other, and whose place within a split differs."""
    train = [part.train.session_ids for part in (one, other)]
    test = [part.test.session_ids for part in (one, other)]
    sides = sum(int(a.is_in(b.implode()).sum()) for a, b in ((train[0], test[1]), (test[0], train[1])))
    places = 0
    for first, second in (train, test):
        common = first.filter(first.is_in(second.implode())), second.filter(second.is_in(first.implode()))
        places += int((common[0] != common[1]).sum())
    return sides, places


def _fixed_loss(model: MultiTRON, held_out: HeldOut) -> float:
    """Mean scalarised loss over `validation_pi`, as in `validation.validate`."""
    found = []
    for key in held_out.config.validation_pi:
        pi = np.asarray(preference(key, len(model.config.objectives)), dtype=np.float32)
        found.append(_mean_loss(model, held_out, [pi]))
    return float(np.mean(found))


def _drawn_loss(model: MultiTRON, held_out: HeldOut, seed: int) -> float:
    """Scalarised loss with one random preference per batch, as in training, and negatives of this seed."""
    random = np.random.default_rng(seed)
    batches = -(-len(held_out.rows) // held_out.config.batch_sessions)
    pi = random.dirichlet(held_out.config.beta, size=batches).astype(np.float32)
    return _mean_loss(model, replace(held_out, config=replace(held_out.config, seed=1000 + seed)), list(pi))


@torch.no_grad()
def _mean_loss(model: MultiTRON, held_out: HeldOut, preferences: list[np.ndarray]) -> float:
    """Mean scalarised loss over steps; batches cycle through the preferences."""
    total, steps = 0.0, 0
    for number, work in enumerate(held_out.works(model, preferences[0])):
        pi = torch.from_numpy(preferences[number % len(preferences)]).expand_as(work.pi)
        losses = held_out.losses(model, replace(work, pi=pi))
        total += float(scalarisation(held_out.config.scalarisation)(losses, pi[work.negatives.session_of_step]).sum())
        steps += len(losses)
    return total / steps


def _simulated(folder: Path) -> tuple[Path, Path, Path]:
    """Raw files, model folder and prepared sessions of a small simulated shop."""
    simulate(folder / "raw", sessions=4_000, items=500, days=28, format=FORMAT)
    data = prepare_sessions(read_events(folder / "raw", FORMAT), FORMAT)
    data.save(folder / "sessions")
    train(data, presets.demo().changed(training={"epochs": 1}), folder / "model", progress=False)
    return folder / "raw", folder / "model", folder / "sessions"


if __name__ == "__main__":
    sys.exit(main())
