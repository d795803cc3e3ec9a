"""ONNX graphs under onnxruntime: the lists of the model, with exclusions and an assortment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.export import CARRIED_FILES, export_version
from serving.in_process import InProcessScorer
from serving.interface import ONNX_BACKEND, LiveModel, ScoringRequest
from serving.onnx_graph import IR_VERSION, OPSET
from serving.triton_scorer import request_tensors
from tests.serving.conftest import write_model

SHAPES: dict[str, dict[str, Any]] = {
    "one head": {},
    "two heads, positions from the end": {"heads": 2, "positions": "end"},
    "own clicks added": {"own_clicks": "added"},
    "one layer": {"layers": 1},
    "three objectives": {"objectives": ("click", "cart", "order")},
    "one click": {"max_length": 1},
}


def some_request(items: int, objectives: int, longest: int, k: int) -> ScoringRequest:
    """40 sessions of all lengths, half of the items allowed, three excluded."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, longest + 1, 40)
    clicks = generator.integers(1, items + 1, (40, longest)) * (np.arange(longest) < lengths[:, None])
    pi = generator.dirichlet(np.ones(objectives), 40).astype(np.float32)
    excluded = np.stack([generator.permutation(items)[:3] + 1 for _ in range(40)])
    return ScoringRequest(clicks, lengths, pi, k, excluded, generator.random(items) < 0.5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("block_items", [64, 1000])
def test_write_onnx_gives_the_lists_of_the_model(tmp_path: Path, shape: dict[str, Any], block_items: int) -> None:
    items, k = 203, 12  # not a multiple of 8; several blocks, the last one shorter than k plus the exclusions
    model_dir = write_model(tmp_path / "model", items=items, **shape)
    if "own_clicks" in shape:  # their initial values are 0
        weights = load_file(model_dir / "weights.safetensors")
        save_file({**weights, "own_clicks": torch.tensor([0.3, -0.7])}, model_dir / "weights.safetensors")
    manifest = export_version(model_dir, tmp_path / "1", backend=ONNX_BACKEND, block_items=block_items)
    session = onnxruntime.InferenceSession(tmp_path / "1" / "model.onnx")
    model = LiveModel("m", 1, "first", manifest.vocabulary_hash, items, manifest.max_length, backend=ONNX_BACKEND)
    request = some_request(items, manifest.objectives, manifest.max_length, k)
    inputs, parameters = request_tensors(request, model)
    assert parameters is None
    index, scores = session.run(["item_index", "score"], inputs)
    expected_index, expected_scores = InProcessScorer(model_dir).top_k(request)
    assert index.dtype == np.int32
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    assert (index == expected_index).all()
    assert request.assortment is not None
    assert request.excluded is not None
    assert request.assortment[index - 1].all()
    assert not (index[:, :, None] == request.excluded[:, None, :]).any()


def test_write_onnx_orders_equal_scores_by_index(tmp_path: Path) -> None:
    model_dir = write_model(tmp_path / "model", items=150)
    weights = load_file(model_dir / "weights.safetensors")
    weights["item_embedding.weight"][1:] = weights["item_embedding.weight"][7].clone()
    save_file(weights, model_dir / "weights.safetensors")
    export_version(model_dir, tmp_path / "1", backend=ONNX_BACKEND, block_items=64)
    session = onnxruntime.InferenceSession(tmp_path / "1" / "model.onnx")
    model = LiveModel("m", 1, "first", "", 150, 10, backend=ONNX_BACKEND)
    one = ScoringRequest(np.ones((2, 3), np.int64), np.array([3, 1]), np.full((2, 2), 0.5, np.float32), 100)
    index, _ = session.run(None, request_tensors(one, model)[0])
    assert index.tolist() == [list(range(1, 101))] * 2


def test_write_onnx_refers_to_the_safetensors_file(tmp_path: Path) -> None:
    model_dir = write_model(tmp_path / "model")
    manifest = export_version(model_dir, tmp_path / "1", backend=ONNX_BACKEND)
    assert set(manifest.files) - set(CARRIED_FILES) == {"model.onnx", "weights.safetensors"}
    graph = onnx.load(tmp_path / "1" / "model.onnx", load_external_data=False)
    # The limits of the onnxruntime (1.19) in Triton 24.10.
    assert (graph.ir_version, graph.opset_import[0].version) == (IR_VERSION, OPSET)
    assert IR_VERSION <= 10
    assert OPSET <= 21
    external = [tensor for tensor in graph.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"} == {
        "weights.safetensors"
    }
    assert (tmp_path / "1" / "model.onnx").stat().st_size < 100_000
