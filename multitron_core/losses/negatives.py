"""Negatives: which items a step's target is told apart from.

By the MultiTRON and TRON papers (arXiv 2407.16828, 2307.14906): many uniform items shared by the batch, drawn with
replacement from those that no session of the batch has among its inputs, and for each session inputs of OTHER
sessions, drawn without replacement.

All of them are columns of one table of distinct items: a copy count a column stands for an item that was drawn several
times. One matrix product scores the table, and an item's embedding is read and its gradient written once a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multitron_core.sessions.batches import Batch


@dataclass(frozen=True, eq=False)
class Negatives:
    """The distinct items of a step: first those of the batch, then those that were only drawn uniformly.

    Args:
        batch_items: int64 [b], inputs and targets of the batch, distinct and rising.
        uniform_items: int64 [u], drawn items that are not of the batch, distinct and rising.
        batch_copies: int32 [sessions, b], how often each session drew each item of the batch.
        uniform_copies: int64 [u], how often each was drawn, the same for all sessions.
        inputs: int64 [steps], the column of each step's input, in [0, b).
        targets: int64 [steps], the column of each step's target, in [0, b).
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
        excluded: int64, distinct and rising, in [1, items].
        items: size of the catalogue.
        draws: how many.
        rng: the source of randomness.

    Returns:
        int64 [draws], rising; [0] where every item is excluded.
    """
    allowed = items - len(excluded)
    if allowed <= 0:
        return np.empty(0, dtype=np.int64)
    rank = np.sort(rng.integers(0, allowed, draws))
    # The r-th allowed item lies behind as many excluded ones as have at most r allowed items before them; the few
    # excluded ones are looked up among the ranks, in order.
    allowed_before = excluded - 1 - np.arange(len(excluded))
    ranks = np.diff(np.searchsorted(rank, allowed_before), prepend=0, append=draws)
    return rank + 1 + np.repeat(np.arange(len(excluded) + 1), ranks)


def draw_in_batch(lengths: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """For each session, steps of other sessions, drawn without replacement.

    Floyd's algorithm (Bentley and Floyd, "A Sample of Brilliance", CACM 1987) for all sessions at once: every subset is
    equally likely and a draw costs the same in a batch of any size.

    Args:
        lengths: int64 [sessions], steps a session.
        draws: how many a session; where the others have fewer steps, all of theirs.
        rng: the source of randomness.

    Returns:
        int64 [sessions, draws], flat steps of the batch; -1 where the others have no more.
    """
    starts = np.cumsum(lengths) - lengths
    others = lengths.sum() - lengths  # (sessions)
    # The largest index that a draw may give, (draws, sessions); -1 where there is none, which is nobody's index.
    tops = np.maximum(others - draws + np.arange(draws)[:, None], -1)
    drawn = rng.integers(0, np.maximum(tops, 0) + 1)
    drawn[tops < 0] = -1
    width = lengths.sum() + 1  # a column more, where every -1 falls
    taken, first = np.zeros(len(lengths) * width, dtype=bool), np.arange(len(lengths)) * width
    for draw, top in zip(drawn, tops, strict=True):
        np.copyto(draw, top, where=taken[first + draw])
        taken[first + draw] = True
    chosen = drawn.T  # (sessions, draws)
    skip_own = np.where(chosen >= starts[:, None], lengths[:, None], 0)
    return np.where(chosen >= 0, chosen + skip_own, -1)


def log_draw_rates(inputs: np.ndarray, uniform: int, in_batch: int, batch_steps: float) -> np.ndarray:
    """log q of each item, q its expected draws a session relative to as many draws that are all uniform.

    The logQ correction lowers a negative's logit by it (Bengio and Senecal, "Adaptive Importance Sampling to Accelerate
    Training of a Neural Probabilistic Language Model", 2008; Yi et al., "Sampling-Bias-Corrected Neural Modeling for
    Large Corpus Item Recommendations", RecSys 2019). An item of share f of the inputs is drawn from the batch in_batch
    f times; it may be drawn uniformly where it is no input of the batch, which happens in a share exp(-batch_steps f)
    of the batches: popular items come more often by the one way and more seldom by the other. The mean of q over the
    items is 1.

    Args:
        inputs: int64 [items + 1], how often each item is an input of the training sessions; entry 0 is padding.
        uniform: uniform draws of a batch.
        in_batch: draws a session from the inputs of other sessions.
        batch_steps: inputs of a batch, on average.

    Returns:
        float64 [items + 1]; 0 for padding and for an item that is never drawn.
    """
    items = len(inputs) - 1
    share = inputs[1:] / max(int(inputs.sum()), 1)
    absent = np.exp(-batch_steps * share)
    draws = in_batch * share
    if absent.sum() > 0.0:  # otherwise every batch has every item: there is nothing to draw uniformly
        draws = draws + uniform * absent / absent.sum()
    rates = draws * items / max(uniform + in_batch, 1)
    found = np.log(rates, where=rates > 0.0, out=np.zeros(items))
    return np.concatenate([[0.0], found])


def draw_negatives(batch: Batch, items: int, uniform: int, in_batch: int, rng: np.random.Generator) -> Negatives:
    """Draw the negatives of a batch.

    Args:
        batch: the batch.
        items: size of the catalogue.
        uniform: uniform draws, shared by the batch; none where the batch's inputs are the whole catalogue.
        in_batch: draws a session from the inputs of the other sessions.
        rng: the source of randomness.

    Returns:
        The negatives; `copies` sums to `uniform` + `in_batch` for each session wherever there is that much to draw.
    """
    batch_items, columns = np.unique(np.concatenate([batch.inputs, batch.targets]), return_inverse=True)
    inputs, targets = np.split(columns, 2)
    drawn = draw_uniform(np.unique(batch.inputs), items, uniform, rng)
    uniform_items, uniform_copies = np.unique(drawn, return_counts=True)

    steps = draw_in_batch(batch.lengths, in_batch, rng)
    session, draw = np.nonzero(steps >= 0)
    copies = np.zeros((len(batch.lengths), len(batch_items)), dtype=np.int32)
    # One index, and a number of the same dtype: numpy's quick way to add.
    np.add.at(copies.reshape(-1), session * len(batch_items) + inputs[steps[session, draw]], np.int32(1))

    # Targets that are nobody's input may have been drawn uniformly: they keep the one column they have.
    place = np.searchsorted(uniform_items, batch_items)
    column = np.flatnonzero(np.append(uniform_items, -1)[place] == batch_items)
    copies[:, column] += uniform_copies[place[column]].astype(np.int32)
    uniform_items, uniform_copies = np.delete(uniform_items, place[column]), np.delete(uniform_copies, place[column])
    return Negatives(batch_items, uniform_items, copies, uniform_copies, inputs, targets)
