"""Batches: sessions of a training step as flat arrays, and their padding to rectangles.

A batch contains 256 random (or consecutive) sessions of any length. Its arrays are flat: the steps of a session follow
those of the session before, so that losses and negatives use real steps only. The transformer needs rectangles.
`length_groups` splits the batch, sorted by length, into the rectangles of least total cost. With causal attention and
padding on the right, the results equal those of one rectangle of 50 columns, at a tenth of the computation.

Every batch is a function of (seed, epoch, number), so a resumed training needs no saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from multitron_core.errors import InputError
from multitron_core.sessions.encoded import EncodedSessions


@dataclass(frozen=True, eq=False)
class Batch:
    """Sessions sorted by length, as flat arrays; session s has the steps `starts[s]` to `starts[s] + lengths[s] - 1`.

    Args:
        sessions: int64 [sessions], rows of the data set.
        lengths: int64 [sessions], steps per session (its clicks minus 1), >= 1, not decreasing.
        inputs: int64 [steps], clicked item of each step.
        targets: int64 [steps], item of the next click.
        ordered: bool [steps], whether the target (not the input) is ordered later in the session.
        carted: bool [steps], the same for carts; None if the data has no such labels.
    """

    sessions: np.ndarray
    lengths: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    ordered: np.ndarray
    carted: np.ndarray | None = None

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Labels of the targets, bool [steps], by event: "order", and "cart" if the data has such labels."""
        return {"order": self.ordered} | ({} if self.carted is None else {"cart": self.carted})

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 [sessions], first step of each session."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def session_of_step(self) -> np.ndarray:
        """int64 [steps], session of each step, counted from 0 within the batch."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Sessions `first` to `last - 1` of a batch as a padded rectangle.

    Args:
        first, last: Range of sessions of the batch, `last` excluded.
        source: int64 [sessions, steps], flat step of the batch in each cell; -1 is padding.
        cells: int64 [real steps], cell of each real step in the flattened rectangle, in the batch's order.
    """

    first: int
    last: int
    source: np.ndarray
    cells: np.ndarray


def training_rows(data: EncodedSessions) -> np.ndarray:
    """Rows of the sessions with at least two clicks, int64 [rows], in the data's order; others have no target."""
    return np.flatnonzero(data.lengths >= 2)


def random_of(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Random generator of one batch.

    Args:
        seed: Seed of the training.
        epoch: Epoch, from 0; -1 for validation.
        number: Number of the batch in the epoch, from 0; -1 for the order of the sessions in the epoch.
    """
    return np.random.default_rng([seed, epoch + 1, number + 1])


def epoch_order(rows: np.ndarray, session_order: str, seed: int, epoch: int) -> np.ndarray:
    """Order in which an epoch reads sessions.

    Args:
        rows: int64 [sessions], rows in chronological order.
        session_order: "shuffled", a permutation given by seed and epoch, or "chronological", `rows` unchanged.
        seed: Seed of the training.
        epoch: Epoch, from 0.

    Returns:
        int64 [sessions].
    """
    if session_order == "chronological":
        return rows
    return random_of(seed, epoch, -1).permutation(rows)


def make_batch(data: EncodedSessions, rows: np.ndarray, max_length: int) -> Batch:
    """Make the batch of the given rows.

    A batch uses the last `max_length` + 1 clicks of a session. All but the last are inputs, all but the first are
    targets. A step has the label of its target, which follows from the whole session.

    Args:
        data: The sessions.
        rows: int [sessions], rows of sessions with at least two clicks.
        max_length: Maximum number of inputs per session.

    Raises:
        InputError: There is no row, or a session has a single click.
    """
    rows = np.asarray(rows, dtype=np.int64)
    ends = data.offsets[rows + 1]
    lengths = np.minimum(ends - data.offsets[rows] - 1, max_length)
    if not len(rows) or lengths.min() < 1:
        raise InputError(
            "a batch needs sessions of two clicks or more",
            found={"sessions": len(rows), "rows too short": rows[lengths < 1][:5].tolist()},
            hint="use rows of batches.training_rows",
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
    """Split sessions, sorted by length, into rectangles of least total cost.

    The cost of a rectangle is the number of its cells, padding included, plus `overhead`. The result is exact, by
    dynamic programming over the distinct lengths (at most 50).

    Args:
        lengths: int [sessions], not decreasing, >= 1.
        overhead: Fixed cost of a rectangle, in cells; a very large number gives one rectangle.

    Returns:
        End (exclusive) of each rectangle, increasing; the last is the number of sessions.
    """
    if overhead >= len(lengths) * lengths[-1]:  # no second rectangle saves as many cells
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
    """Split a batch into rectangles of least total cost; see `length_groups` for `overhead`."""
    found, first = [], 0
    for last in length_groups(batch.lengths, overhead):
        lengths, starts = batch.lengths[first:last, None], batch.starts[first:last, None]
        step = np.arange(lengths.max())[None, :]
        real = step < lengths
        found.append(Rectangle(first, last, np.where(real, starts + step, -1), np.flatnonzero(real)))
        first = last
    return found


def part_of(batch: Batch, rank: int, world: int) -> tuple[Batch, np.ndarray]:
    """Part of a batch for one of several processes: every `world`-th session, beginning with session `rank`.

    Args:
        batch: The whole batch.
        rank: Number of the process, from 0.
        world: Number of processes.

    Returns:
        The smaller batch, which may have no session, and int64 [its steps], its steps as flat steps of `batch`.
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
