"""Scoring as a stream: correct rows in a fixed order, and refusals."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.errors import InputError, UnavailableError
from multitron_core.model.folder import load_model
from multitron_core.preference.keys import pi_vector
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving.in_process import InProcessScorer
from serving.interface import LiveModel, ScoringRequest
from serving.scorer import ScoringProgress, score_sessions
from tests.serving.conftest import ITEMS, some_sessions, write_model


@pytest.fixture(scope="module")
def scorer(model_dir: Path) -> InProcessScorer:
    return InProcessScorer(model_dir)


def one_by_one(
    model_dir: Path, sessions: EncodedSessions, vocabulary: Vocabulary, pi: str, k: int, excluded: str = ""
) -> pl.DataFrame:
    """Score each session separately: its last clicks, all scores, a sort."""
    model, rows = load_model(model_dir), []
    frame = sessions.to_frame()
    for session_id, items, ordered in zip(frame["session_id"], frame["items"], frame["ordered"], strict=True):
        clicks = torch.tensor(items.to_list())[-model.config.max_length :]
        with torch.inference_mode():
            states = model(clicks[None], torch.tensor([len(clicks)]), torch.tensor(pi_vector(pi)))
            scores = model.scores(states[0, -1]).numpy()
        hidden = {"clicked": items, "ordered": items.filter(ordered), "": items.clear()}[excluded]
        scores[np.array(hidden.to_list(), np.int64) - 1] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        rows += [
            (session_id, rank + 1, vocabulary.item_ids[i], scores[i].item()) for rank, i in enumerate(best.tolist())
        ]
    schema = {"session_id": pl.String, "rank": pl.Int16, "item_id": pl.String, "score": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("session_id", "rank")


@pytest.mark.parametrize("excluded", ["", "clicked", "ordered"])
def test_score_sessions_equals_scoring_one_by_one(
    scorer: InProcessScorer, model_dir: Path, vocabulary: Vocabulary, excluded: str
) -> None:
    sessions = some_sessions(vocabulary, 150)
    frames = list(
        score_sessions(
            sessions,
            0.25,
            7,
            scorer=scorer,
            vocabulary=vocabulary,
            exclude_clicked=excluded == "clicked",
            exclude_ordered=excluded == "ordered",
            batch_sessions=8,
            window_sessions=40,
        )
    )
    assert [len(frame) for frame in frames] == [280, 280, 280, 210]
    found, expected = pl.concat(frames), one_by_one(model_dir, sessions, vocabulary, "0.25", 7, excluded)
    assert found.schema == expected.schema
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-5)


def test_score_sessions_ignores_the_order_of_sessions(scorer: InProcessScorer, vocabulary: Vocabulary) -> None:
    sessions = some_sessions(vocabulary, 200)
    shuffled = sessions.select(np.random.default_rng(5).permutation(200))
    frames = [
        pl.concat(score_sessions(some, "1.00", 5, scorer=scorer, vocabulary=vocabulary, window_sessions=64))
        for some in (sessions, shuffled)
    ]
    assert frames[0].equals(frames[1])


class Counting:
    """Forwards requests and counts sequences; with `away` it stops answering after 100 sequences."""

    def __init__(self, scorer: InProcessScorer, *, away: bool = False) -> None:
        self.scorer, self.away, self.sequences, self.in_flight, self.most = scorer, away, 0, 0, 0
        self.lock = threading.Lock()

    def live_model(self) -> LiveModel:
        return self.scorer.live_model()

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            self.sequences += len(request.items)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        try:
            if self.sequences > 100 and self.away:
                raise UnavailableError("away")
            return self.scorer.top_k(request, model)
        finally:
            with self.lock:
                self.in_flight -= 1


def test_score_sessions_scores_equal_sequences_once(scorer: InProcessScorer, vocabulary: Vocabulary) -> None:
    items = np.array([3, 4, 9, 3, 4, 9, 8], np.int32)
    ids = pl.Series(["b", "a", "c"])
    sessions = EncodedSessions(ids, np.array([0, 3, 6, 7]), items, np.zeros(7, bool), vocabulary.hash)
    counting, seen = Counting(scorer), list[ScoringProgress]()
    found = pl.concat(score_sessions(sessions, "0.50", 3, scorer=counting, vocabulary=vocabulary, progress=seen.append))
    assert counting.sequences == 2
    a, b = (found.filter(pl.col("session_id") == name).drop("session_id") for name in "ab")
    assert a.equals(b)
    assert [(one.sessions, one.total, one.sequences) for one in seen] == [(3, 3, 2)]


def test_log_progress_shows_the_rate_and_the_time_left(
    scorer: InProcessScorer, vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture
) -> None:
    halfway = ScoringProgress(sessions=100, total=400, requests=2, sequences=90, seconds=5.0)
    assert (halfway.rate, halfway.seconds_left) == (20.0, 15.0)
    with caplog.at_level("INFO"):
        list(score_sessions(some_sessions(vocabulary, 90), "0.50", 3, scorer=scorer, vocabulary=vocabulary))
    assert re.search(r"scored 90 of 90 sessions \(\d+ per second, 0 s left\)", caplog.text)


def test_score_sessions_bounds_requests_and_raises_failures(scorer: InProcessScorer, vocabulary: Vocabulary) -> None:
    counting = Counting(scorer)
    list(
        score_sessions(
            some_sessions(vocabulary, 300),
            "0.50",
            3,
            scorer=counting,
            vocabulary=vocabulary,
            batch_sessions=8,
            in_flight=3,
        )
    )
    assert counting.most <= 3
    failing = Counting(scorer, away=True)
    with pytest.raises(UnavailableError):
        list(score_sessions(some_sessions(vocabulary, 300), "0.50", 3, scorer=failing, vocabulary=vocabulary))


def test_score_sessions_fills_lists_from_the_assortment(scorer: InProcessScorer, vocabulary: Vocabulary) -> None:
    sessions = some_sessions(vocabulary, 100)
    assortment = vocabulary.item_ids.gather_every(3)
    found = pl.concat(
        score_sessions(
            sessions,
            "0.50",
            10,
            scorer=scorer,
            vocabulary=vocabulary,
            assortment=pl.concat([assortment, pl.Series(["not in the vocabulary"])]),
            exclude_clicked=True,
        )
    )
    assert len(found) == 1000
    assert found["item_id"].is_in(assortment.implode()).all()
    assert found.select("session_id", "item_id").is_unique().all()
    clicks = (
        sessions.to_frame()
        .explode("items")
        .select("session_id", item_id=vocabulary.decode(sessions.to_frame().explode("items")["items"]))
    )
    assert found.join(clicks, on=["session_id", "item_id"], how="semi").is_empty()


def test_score_sessions_refuses_at_the_call(scorer: InProcessScorer, vocabulary: Vocabulary, tmp_path: Path) -> None:
    sessions = some_sessions(vocabulary, 20)
    other = Vocabulary.load(write_model(tmp_path / "other", items=ITEMS - 1) / "vocabulary.parquet")
    given: dict[str, Any] = {"scorer": scorer, "vocabulary": vocabulary}
    with pytest.raises(InputError, match="vocabularies"):
        score_sessions(some_sessions(other, 20), "0.50", 5, scorer=scorer, vocabulary=other)
    with pytest.raises(InputError, match="k lies outside"):
        score_sessions(sessions, "0.50", ITEMS + 1, **given)
    with pytest.raises(InputError, match="not a pi key"):
        score_sessions(sessions, "0.5", 5, **given)
    with pytest.raises(InputError, match="smaller than a list"):
        score_sessions(sessions, "0.50", 5, assortment=vocabulary.item_ids.head(4), **given)
    twice = EncodedSessions(
        pl.Series(["a", "a"]), np.array([0, 1, 2]), np.ones(2, np.int32), np.zeros(2, bool), vocabulary.hash
    )
    with pytest.raises(InputError, match="session ids repeat"):
        score_sessions(twice, "0.50", 5, **given)
    empty = EncodedSessions(
        pl.Series(["a"]), np.array([0, 0]), np.ones(0, np.int32), np.zeros(0, bool), vocabulary.hash
    )
    with pytest.raises(InputError, match="without a click"):
        score_sessions(empty, "0.50", 5, **given)


def test_score_sessions_refuses_a_list_that_is_too_short(scorer: InProcessScorer, vocabulary: Vocabulary) -> None:
    items = np.arange(1, 5, dtype=np.int32)
    sessions = EncodedSessions(pl.Series(["a"]), np.array([0, 4]), items, np.zeros(4, bool), vocabulary.hash)
    frames = score_sessions(
        sessions,
        "0.50",
        5,
        scorer=scorer,
        vocabulary=vocabulary,
        assortment=vocabulary.item_ids.head(6),
        exclude_clicked=True,
    )
    with pytest.raises(InputError, match=r"cannot be filled.*session a"):
        list(frames)


def test_score_sessions_without_sessions_yields_no_frame(scorer: InProcessScorer, vocabulary: Vocabulary) -> None:
    none = some_sessions(vocabulary, 3).select(np.array([], np.int64))
    assert list(score_sessions(none, "0.50", 5, scorer=scorer, vocabulary=vocabulary)) == []
