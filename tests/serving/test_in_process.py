"""Scoring without Triton: the same interface and the same errors as a Triton server."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.sessions.vocabulary import Vocabulary
from serving.deployment import deploy
from serving.in_process import InProcessScorer, InProcessServer
from serving.interface import ONNX_BACKEND, Scorer, ScoringRequest
from serving.scorer import score_sessions
from tests.serving.conftest import some_sessions

REQUEST = ScoringRequest(np.ones((1, 1), np.int64), np.ones(1, np.int64), np.full((1, 2), 0.5, np.float32), 5)


def test_in_process_scorer_logs_that_it_uses_no_server(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    live = InProcessScorer(model_dir).live_model()
    assert (live.version, live.model_version) == (0, "first")
    assert "without a Triton server" in caplog.text


@pytest.mark.parametrize("k", [0, 501])
def test_in_process_scorer_refuses_k_outside_the_vocabulary(model_dir: Path, k: int) -> None:
    with pytest.raises(InputError, match="k lies outside the vocabulary"):
        InProcessScorer(model_dir).top_k(dataclasses.replace(REQUEST, k=k))


def test_in_process_scorer_batches_by_its_memory(model_dir: Path) -> None:
    items = np.arange(1, 31).reshape(10, 3)
    request = ScoringRequest(items, np.full(10, 3), np.full((10, 2), 0.5, np.float32), 4)
    one_by_one = InProcessScorer(model_dir, score_memory_mib=0).top_k(request)
    together = InProcessScorer(model_dir).top_k(request)
    assert (one_by_one[0] == together[0]).all()
    np.testing.assert_allclose(one_by_one[1], together[1], rtol=1e-5, atol=1e-6)


def test_in_process_server_serves_the_deployed_version(repository: Path, model_dir: Path) -> None:
    with InProcessServer(repository) as server:
        live = server.live_model()
        assert (live.version, live.model_version) == (1, "first")
        index, scores = server.scorer().top_k(REQUEST, live)
        expected_index, expected_scores = InProcessScorer(model_dir).top_k(REQUEST)
        assert (index == expected_index).all()
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
        with pytest.raises(UnavailableError, match="not served any more"):
            server.scorer().top_k(REQUEST, dataclasses.replace(live, version=8))


def test_in_process_server_serves_an_onnx_version(repository: Path, model_dir: Path, vocabulary: Vocabulary) -> None:
    def lists(scorer: Scorer) -> pl.DataFrame:
        assortment = vocabulary.item_ids.gather_every(2)
        sessions = some_sessions(vocabulary, 120)
        return pl.concat(
            score_sessions(
                sessions, "0.25", 7, scorer=scorer, vocabulary=vocabulary, assortment=assortment, exclude_clicked=True
            )
        )

    expected = lists(InProcessScorer(model_dir))
    with InProcessServer(repository) as server:
        deploy(model_dir, server, golden_pi=["0.50"], backend=ONNX_BACKEND)
        assert server.live_model().backend == ONNX_BACKEND
        found = lists(server.scorer())
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-5)


def test_in_process_server_without_a_deployment(tmp_path: Path) -> None:
    with InProcessServer(tmp_path / "repository") as server:
        with pytest.raises(InputError, match="no model is deployed"):
            server.live_model()
        with pytest.raises(InputError, match="no model is deployed"):
            server.load("multitron")


def test_in_process_server_refuses_a_damaged_version(repository: Path) -> None:
    (repository / "multitron" / "1" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="the version cannot be loaded"), InProcessServer(repository):
        pass
