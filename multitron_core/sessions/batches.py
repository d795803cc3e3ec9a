"""Batches: which sessions a step reads, as flat arrays, and how they are padded.

A batch holds 256 random (or consecutive) sessions of any length, flat: the steps of one session behind those of the
other, so that losses and negatives see real steps only. The transformer needs rectangles; `length_groups` cuts the
batch, sorted by length, into the few rectangles that cost least. With causal attention and padding on the right this
gives the numbers of one rectangle of 50 columns at a tenth of the work.

Everything is a function of (seed, epoch, number): a resumed training needs no saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from multitron_core.errors import InputError
from multitron_core.sessions.encoded import EncodedSessions


@dataclass(frozen=True, eq=False)
class Batch:
    """Sessions sorted by length, flat; session s has the steps `starts[s]` to `starts[s] + lengths[s] - 1`.

    Args:
        sessions: int64 [sessions], rows of the data set.
        lengths: int64 [sessions], steps a session (its clicks less one), >= 1, rising.
        inputs: int64 [steps], the clicked item of each step.
        targets: int64 [steps], the next click.
        ordered: bool [steps], whether the TARGET is ordered later in the session.
        carted: the same of carts; None where the data has no such labels.
    """

    sessions: np.ndarray
    lengths: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    ordered: np.ndarray
    carted: np.ndarray | None = None

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The labels of targets, bool [steps], by event: "order", and "cart" where there are some."""
        return {"order": self.ordered} | ({} if self.carted is None else {"cart": self.carted})

    @cached_property
    def starts(self) -> np.ndarray:
        """First step of each session, int64 [sessions]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def session_of_step(self) -> np.ndarray:
        """int64 [steps], 0-based within the batch."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Sessions `first` to `last - 1` of a batch as a padded rectangle.

    Args:
        first, last: which sessions of the batch.
        source: int64 [sessions, steps], the flat step (of the batch) of each cell; -1 is padding.
        cells: int64 [real steps], the cell of each real step in the flattened rectangle, in the batch's order.
    """

    first: int
    last: int
    source: np.ndarray
    cells: np.ndarray


def training_rows(data: EncodedSessions) -> np.ndarray:
    """Rows of the sessions that teach something (two clicks or more), int64, in the data's order."""
    return np.flatnonzero(data.lengths >= 2)


def random_of(seed: int, epoch: int, number: int) -> np.random.Generator:
    """The randomness of one batch, at any time; `number` -1 is the epoch's own, `epoch` -1 validation's."""
    return np.random.default_rng([seed, epoch + 1, number + 1])


def epoch_order(rows: np.ndarray, session_order: str, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch reads the rows: "shuffled" by seed and epoch, or "chronological", as they stand."""
    if session_order == "chronological":
        return rows
    return random_of(seed, epoch, -1).permutation(rows)


def make_batch(data: EncodedSessions, rows: np.ndarray, max_length: int) -> Batch:
    """The batch of the given rows.

    Labels are those of the whole session; then the last `max_length` + 1 clicks count: all but the last are inputs,
    all but the first are targets, and the order label belongs to the target.

    Args:
        data: the sessions.
        rows: int [sessions], each of two clicks or more.
        max_length: inputs that the model reads.

    Raises:
        InputError: a session of one click, or no session.
    """
    rows = np.asarray(rows, dtype=np.int64)
    ends = data.offsets[rows + 1]
    lengths = np.minimum(ends - data.offsets[rows] - 1, max_length)
    if not len(rows) or lengths.min() < 1:
        raise InputError(
            "a batch needs sessions of two clicks or more",
            found={"sessions": len(rows), "rows too short": rows[lengths < 1][:5].tolist()},
            hint="take the rows of batches.training_rows",
        )
    by_length = np.argsort(lengths, kind="stable")
    rows, ends, lengths = rows[by_length], ends[by_length], lengths[by_length]
    starts = np.cumsum(lengths) - lengths
    clicks = np.arange(lengths.sum()) + np.repeat(ends - lengths - 1 - starts, lengths)
    return Batch(
        sessions=rows,
        lengths=lengths,
        inputs=data.items[clicks].astype(np.int64),
        targets=data.items[clicks + 1].astype(np.int64),
        ordered=np.asarray(data.ordered[clicks + 1]),
        carted=None if data.carted is None else np.asarray(data.carted[clicks + 1]),
    )


def length_groups(lengths: np.ndarray, overhead: int) -> list[int]:
    """Where to cut sessions, sorted by length, into rectangles of least cost.

    The cost of a rectangle is its cells, padding included, plus `overhead` cells for being one more. Exact, by dynamic
    programming over the distinct lengths (at most 50).

    Args:
        lengths: int [sessions], rising, >= 1.
        overhead: cells that one more rectangle is worth; a very large number gives one rectangle.

    Returns:
        The end (exclusive) of each rectangle, rising; the last is the number of sessions.
    """
    if overhead >= len(lengths) * lengths[-1]:  # no cut saves as much
        return [len(lengths)]
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    best = [0.0]
    cut_before: list[int] = []
    for j in range(1, len(ends)):
        costs = np.asarray(best) + overhead + (ends[j] - ends[:j]) * distinct[j - 1]
        cut_before.append(int(costs.argmin()))
        best.append(float(costs[cut_before[-1]]))
    cuts, j = [], len(distinct)
    while j:
        cuts.append(int(ends[j]))
        j = cut_before[j - 1]
    return cuts[::-1]


def rectangles(batch: Batch, overhead: int) -> list[Rectangle]:
    """The batch as rectangles of least cost; see `length_groups` for `overhead`."""
    found, first = [], 0
    for last in length_groups(batch.lengths, overhead):
        lengths, starts = batch.lengths[first:last, None], batch.starts[first:last, None]
        step = np.arange(lengths.max())[None, :]
        real = step < lengths
        found.append(Rectangle(first, last, np.where(real, starts + step, -1), np.flatnonzero(real)))
        first = last
    return found


def part_of(batch: Batch, rank: int, world: int) -> tuple[Batch, np.ndarray]:
    """Every `world`-th session from `rank` on, for one of several processes, and its steps in the whole batch.

    Returns:
        The smaller batch (it may have no session) and int64 [its steps], the flat steps of `batch` that it holds.
    """
    sessions = np.arange(rank, len(batch.lengths), world)
    steps = np.flatnonzero(batch.session_of_step % world == rank)
    part = Batch(
        batch.sessions[sessions],
        batch.lengths[sessions],
        batch.inputs[steps],
        batch.targets[steps],
        batch.ordered[steps],
        None if batch.carted is None else batch.carted[steps],
    )
    return part, steps
