"""Scoring requests over gRPC: their tensors, and requests that a server refuses."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import tritonclient.grpc as triton_client

from multitron_core.errors import InputError, UnavailableError
from serving.interface import ONNX_BACKEND, LiveModel, ScoringRequest
from serving.server import TritonServer
from serving.triton_scorer import TritonScorer, pack_assortment, request_tensors

ONE = np.ones((1, 1), np.int64)
PI = np.full((1, 2), 0.5, np.float32)
REQUEST = ScoringRequest(ONE, ONE[0], PI, 5)
MODEL = LiveModel("multitron", 1, "first", "", items=10, max_length=10)
ASSORTMENT = np.arange(10) < 9


def test_pack_assortment_starts_at_the_lowest_bit() -> None:
    assert pack_assortment(ASSORTMENT).tolist() == [255, 1]


def test_request_tensors_for_the_python_backend() -> None:
    inputs, parameters = request_tensors(REQUEST, MODEL)
    assert {name: (array.dtype.name, array.shape) for name, array in inputs.items()} == {
        "items": ("int64", (1, 1)),
        "lengths": ("int64", (1, 1)),
        "pi": ("float32", (1, 2)),
        "k": ("int32", (1, 1)),
    }
    assert parameters is None
    inputs, parameters = request_tensors(replace(REQUEST, excluded=ONE, assortment=ASSORTMENT), MODEL)
    assert inputs["excluded"].tolist() == [[1]]
    assert parameters == {"assortment": base64.b64encode(bytes([255, 1])).decode()}


def test_request_tensors_for_onnxruntime_has_every_input() -> None:
    inputs, parameters = request_tensors(REQUEST, replace(MODEL, backend=ONNX_BACKEND))
    assert inputs["excluded"].tolist() == [[0]]
    assert inputs["assortment"].tolist() == [255, 3]
    assert parameters is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (replace(REQUEST, items=ONE * 9999), "item indices"),
        (replace(REQUEST, lengths=ONE[0] * 3), "lengths"),
        (replace(REQUEST, k=9999), "k is 9999"),
        (replace(REQUEST, items=np.ones((1, 11), np.int64)), "11 steps"),
        (replace(REQUEST, pi=PI * np.nan), "finite"),
        (replace(REQUEST, assortment=np.ones(3, bool)), "assortment"),
    ],
    ids=["items", "lengths", "k", "steps", "pi", "assortment"],
)
def test_triton_scorer_refuses_a_wrong_request(server: TritonServer, request_: ScoringRequest, message: str) -> None:
    with pytest.raises(InputError, match=message):
        server.scorer().top_k(request_, server.live_model())


@pytest.mark.slow
def test_triton_scorer_reports_a_version_that_is_gone(server: TritonServer) -> None:
    with pytest.raises(UnavailableError, match="not served any more"):
        server.scorer().top_k(REQUEST, replace(server.live_model(), version=8))


def test_triton_scorer_gives_up_after_its_patience() -> None:
    scorer = TritonScorer(["127.0.0.1:9"], triton_client.InferenceServerClient, patience=0.0)
    with pytest.raises(UnavailableError, match=r"does not answer.*127\.0\.0\.1:9.*start the run again"):
        scorer.top_k(REQUEST, MODEL)
