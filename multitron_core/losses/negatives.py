"""Negative sampling: uniform per batch, in-batch per session.

As in the MultiTRON and TRON papers (arXiv 2407.16828, 2307.14906): many uniform items shared by the batch, drawn with
replacement from items that are no input of the batch; and for each session, inputs of OTHER sessions, drawn without
replacement.

All of them are columns of one table of distinct items; a count per column says how often the item was drawn. One matrix
product scores the table, and each embedding is read, and its gradient written, once per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multitron_core.sessions.batches import Batch


@dataclass(frozen=True, eq=False)
class Negatives:
    """The distinct items of a step: first those of the batch, then those that were only drawn uniformly.

    Args:
        batch_items: int64 [b], inputs and targets of the batch, distinct, ascending.
        uniform_items: int64 [u], drawn items outside the batch, distinct, ascending.
        batch_copies: int32 [sessions, b], how often each session drew each item of the batch.
        uniform_copies: int64 [u], how often each item was drawn, the same for all sessions.
        inputs: int64 [steps], column of each step's input, in [0, b).
        targets: int64 [steps], column of each step's target, in [0, b).
    """

    batch_items: np.ndarray
    uniform_items: np.ndarray
    batch_copies: np.ndarray
    uniform_copies: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray


def draw_uniform(excluded: np.ndarray, items: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Items drawn uniformly with replacement from those that are not excluded.

    Args:
        excluded: int64, distinct, ascending, in [1, items].
        items: size of the catalogue.
        draws: number of draws.
        rng: the source of randomness.

    Returns:
        int64 [draws], ascending; int64 [0] if every item is excluded.
    """
    allowed = items - len(excluded)
    if allowed <= 0:
        return np.empty(0, dtype=np.int64)
    rank = np.sort(rng.integers(0, allowed, draws))
    # The r-th allowed item has as many excluded items before it as have at most r allowed items before them. The few
    # excluded items are looked up among the sorted ranks.
    allowed_before = excluded - 1 - np.arange(len(excluded))
    ranks = np.diff(np.searchsorted(rank, allowed_before), prepend=0, append=draws)
    return rank + 1 + np.repeat(np.arange(len(excluded) + 1), ranks)


def draw_in_batch(lengths: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """For each session, steps of other sessions, drawn without replacement.

    Floyd's algorithm (Bentley and Floyd, "A Sample of Brilliance", CACM 1987) for all sessions at once: every subset is
    equally likely, and the cost of a draw does not depend on the size of the batch.

    Args:
        lengths: int64 [sessions], steps per session.
        draws: draws per session; all steps of the other sessions if they have fewer.
        rng: the source of randomness.

    Returns:
        int64 [sessions, draws], flat steps of the batch; -1 where the other sessions have no more.
    """
    starts = np.cumsum(lengths) - lengths
    others = lengths.sum() - lengths  # (sessions)
    # Largest index that a draw may give, (draws, sessions); -1 where there is none.
    tops = np.maximum(others - draws + np.arange(draws)[:, None], -1)
    drawn = rng.integers(0, np.maximum(tops, 0) + 1)
    drawn[tops < 0] = -1
    width = lengths.sum() + 1  # one more column, which every -1 indexes
    taken, first = np.zeros(len(lengths) * width, dtype=bool), np.arange(len(lengths)) * width
    for draw, top in zip(drawn, tops, strict=True):
        np.copyto(draw, top, where=taken[first + draw])
        taken[first + draw] = True
    chosen = drawn.T  # (sessions, draws)
    skip_own = np.where(chosen >= starts[:, None], lengths[:, None], 0)
    return np.where(chosen >= 0, chosen + skip_own, -1)


def log_draw_rates(inputs: np.ndarray, uniform: int, in_batch: int, batch_steps: float) -> np.ndarray:
    """log q of each item: q is its expected number of draws, relative to the same number of draws that are all uniform.

    The logQ correction subtracts it from a negative's logit (Bengio and Senecal, "Adaptive Importance Sampling to
    Accelerate Training of a Neural Probabilistic Language Model", 2008; Yi et al., "Sampling-Bias-Corrected Neural
    Modeling for Large Corpus Item Recommendations", RecSys 2019). An item with share f of the inputs is drawn in_batch
    times f from the batch. It may be drawn uniformly if it is no input of the batch, which holds for a share
    exp(-batch_steps f) of the batches. So popular items are drawn more often in-batch and less often uniformly. The
    mean of q over the items is 1.

    Args:
        inputs: int64 [items + 1], how often each item is an input of the training sessions; entry 0 is padding.
        uniform: uniform draws per batch.
        in_batch: draws per session from the inputs of other sessions.
        batch_steps: mean number of inputs per batch.

    Returns:
        float64 [items + 1]; 0 for padding and for an item that is never drawn.
    """
    items = len(inputs) - 1
    share = inputs[1:] / max(int(inputs.sum()), 1)
    absent = np.exp(-batch_steps * share)
    draws = in_batch * share
    if absent.sum() > 0.0:  # else every batch has every item: none is left to draw uniformly
        draws = draws + uniform * absent / absent.sum()
    rates = draws * items / max(uniform + in_batch, 1)
    found = np.log(rates, where=rates > 0.0, out=np.zeros(items))
    return np.concatenate([[0.0], found])


def draw_negatives(batch: Batch, items: int, uniform: int, in_batch: int, rng: np.random.Generator) -> Negatives:
    """Draw the negatives of a batch.

    Args:
        batch: the batch.
        items: size of the catalogue.
        uniform: uniform draws, shared by the batch; none if the batch's inputs are the whole catalogue.
        in_batch: draws per session from the inputs of the other sessions.
        rng: the source of randomness.

    Returns:
        The negatives; the copies sum to `uniform` + `in_batch` for each session that has so many to draw from.
    """
    batch_items, columns = np.unique(np.concatenate([batch.inputs, batch.targets]), return_inverse=True)
    inputs, targets = np.split(columns, 2)
    drawn = draw_uniform(np.unique(batch.inputs), items, uniform, rng)
    uniform_items, uniform_copies = np.unique(drawn, return_counts=True)

    steps = draw_in_batch(batch.lengths, in_batch, rng)
    session, draw = np.nonzero(steps >= 0)
    copies = np.zeros((len(batch.lengths), len(batch_items)), dtype=np.int32)
    # A flat index and a value of the same dtype take numpy's fast path.
    np.add.at(copies.reshape(-1), session * len(batch_items) + inputs[steps[session, draw]], np.int32(1))

    # Targets that are no input may have been drawn uniformly too: they keep their one column.
    place = np.searchsorted(uniform_items, batch_items)
    column = np.flatnonzero(np.append(uniform_items, -1)[place] == batch_items)
    copies[:, column] += uniform_copies[place[column]].astype(np.int32)
    uniform_items, uniform_copies = np.delete(uniform_items, place[column]), np.delete(uniform_copies, place[column])
    return Negatives(batch_items, uniform_items, copies, uniform_copies, inputs, targets)
