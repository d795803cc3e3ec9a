"""Golden requests and the comparison of lists."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from multitron_core.sessions.vocabulary import Vocabulary
from serving.golden import GOLDEN_SESSIONS, compare_lists, golden_requests
from serving.interface import LiveModel
from tests.serving.conftest import some_sessions

MODEL = LiveModel("multitron", 1, "first", "", items=40, max_length=6)
PI = np.array([0.25, 0.75], np.float32)


@pytest.mark.parametrize("count", [0, 30, 2 * GOLDEN_SESSIONS])
def test_golden_requests_are_a_batch_and_its_first_session(count: int) -> None:
    vocabulary = Vocabulary(pl.Series([str(number) for number in range(MODEL.items)]))
    sessions = some_sessions(vocabulary, count) if count else None
    batch, single = golden_requests(MODEL, sessions, PI, 7)
    rows = min(count, GOLDEN_SESSIONS) or GOLDEN_SESSIONS
    assert batch.items.shape == (rows, MODEL.max_length)
    assert batch.pi.tolist() == [PI.tolist()] * rows
    assert batch.k == single.k == 7
    inside = np.arange(MODEL.max_length) < batch.lengths[:, None]
    assert ((batch.items > 0) == inside).all()
    assert batch.items.max() <= MODEL.items
    assert single.items.tolist() == [batch.items[0, : batch.lengths[0]].tolist()]
    again, _ = golden_requests(MODEL, sessions, PI, 7)
    assert (again.items == batch.items).all()


INDEX = np.array([[3, 1, 2]], np.int32)
SCORES = np.array([[2.0, 1.0, 0.5]], np.float32)


def test_compare_lists_accepts_equal_lists_and_near_ties() -> None:
    assert compare_lists((INDEX, SCORES), (INDEX, SCORES + 1e-5)) is None
    tied = np.array([[2.0, 1.0, 0.99995]], np.float32)
    assert compare_lists((INDEX, tied), (INDEX[:, [0, 2, 1]], tied)) is None
    assert compare_lists((INDEX, tied), (np.array([[3, 1, 9]]), tied)) is None, "item 9 ties with the last rank"


@pytest.mark.parametrize(
    ("index", "scores", "difference"),
    [
        (INDEX[:, :2], SCORES[:, :2], r"lists of shape \(1, 2\), expected \(1, 3\)"),
        (INDEX, SCORES * np.nan, "not finite"),
        (INDEX, np.array([[2.0, 1.1, 0.5]], np.float32), "session 0, rank 2: score 1.1, expected 1"),
        (INDEX[:, [0, 2, 1]], SCORES, "session 0, rank 2: item 2, expected 1"),
        (np.array([[9, 1, 2]]), SCORES, "session 0, rank 1: item 9, expected 3"),
    ],
    ids=["shape", "nan", "score", "order", "item"],
)
def test_compare_lists_describes_the_difference(index: np.ndarray, scores: np.ndarray, difference: str) -> None:
    found = compare_lists((INDEX, SCORES), (index, scores))
    assert found is not None
    assert re.search(difference, found)
