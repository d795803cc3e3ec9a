"""Golden requests: a loaded version must answer them with the lists of the in-process scorer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multitron_core.sessions.encoded import EncodedSessions
from serving.interface import LiveModel, ScoringRequest

GOLDEN_SESSIONS = 256
"""Largest number of sessions in a golden request."""
TOLERANCE = 1e-4
"""Accepted difference of scores between two correct fp32 evaluations, relative to the largest absolute score. Lists
whose items differ only where their scores lie this close count as equal."""


def golden_requests(
    model: LiveModel, sessions: EncodedSessions | None, pi: np.ndarray, k: int
) -> Iterator[ScoringRequest]:
    """Two requests: one padded batch of sessions of all lengths, then its first session alone.

    Args:
        model: its number of items and maximum session length are used.
        sessions: held-out sessions, of which at most `GOLDEN_SESSIONS` are drawn; None uses random sessions.
        pi: preference, float32 [objectives].
        k: items per list.

    Yields:
        The two requests. The draw has a fixed seed, so equal arguments give equal requests.
    """
    generator = np.random.default_rng(0)
    if sessions is None or not len(sessions):
        lengths = generator.integers(1, model.max_length + 1, GOLDEN_SESSIONS)
        clicks = [generator.integers(1, model.items + 1, length) for length in lengths]
    else:
        chosen = generator.choice(len(sessions), min(GOLDEN_SESSIONS, len(sessions)), replace=False)
        part = sessions.select(np.sort(chosen))
        clicks = [
            part.items[begin:end][-model.max_length :]
            for begin, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)
        ]
        lengths = np.array([len(items) for items in clicks])
    items = np.zeros((len(clicks), int(lengths.max())), np.int64)
    for row, session in enumerate(clicks):
        items[row, : len(session)] = session
    preferences = np.tile(pi, (len(items), 1))
    yield ScoringRequest(items, lengths.astype(np.int64), preferences, k)
    first = int(lengths[0])
    yield ScoringRequest(items[:1, :first], lengths[:1].astype(np.int64), preferences[:1], k)


def compare_lists(
    expected: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray], *, tolerance: float = TOLERANCE
) -> str | None:
    """Describe the first difference between two sets of lists.

    Args:
        expected, found: item indices int [sessions, k] and scores float [sessions, k], best first.
        tolerance: accepted difference of scores, relative to the largest absolute expected score (at least 1e-3).

    Returns:
        The difference in words; None where the lists are equal within the tolerance.
    """
    (expected_index, expected_scores), (found_index, found_scores) = expected, found
    if expected_index.shape != found_index.shape or expected_scores.shape != found_scores.shape:
        return f"lists of shape {found_index.shape}, expected {expected_index.shape}"
    if not np.isfinite(found_scores).all():
        return "scores that are not finite numbers"
    allowance = tolerance * max(float(np.abs(expected_scores).max()), 1e-3)
    gap = np.abs(expected_scores - found_scores)
    if gap.max() > allowance:
        row, rank = np.unravel_index(int(gap.argmax()), gap.shape)
        return (
            f"session {row}, rank {rank + 1}: score {found_scores[row, rank]:.6g}, "
            f"expected {expected_scores[row, rank]:.6g}"
        )
    for row, rank in np.argwhere(expected_index != found_index):
        # Another item at this rank is correct only if its expected score lies within the tolerance of this rank's.
        # An item outside the expected list has at most the score of the last rank.
        expected_ranks = np.flatnonzero(expected_index[row] == found_index[row, rank])
        item_score = expected_scores[row, expected_ranks[0]] if len(expected_ranks) else expected_scores[row, -1]
        if abs(float(item_score) - float(expected_scores[row, rank])) > allowance:
            return (
                f"session {row}, rank {rank + 1}: item {found_index[row, rank]}, expected {expected_index[row, rank]}"
            )
    return None
