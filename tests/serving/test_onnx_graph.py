"""The ONNX variant under onnxruntime: the lists of the model, with exclusions and an assortment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from google.protobuf import text_format
from safetensors.torch import load_file, save_file
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError
from multitron_core.sessions.vocabulary import Vocabulary
from serving.deployment import deploy, rollback
from serving.export import CARRIED_FILES, export_version
from serving.in_process import InProcessScorer, InProcessServer
from serving.interface import ONNX_BACKEND, LiveModel, ScoringRequest
from serving.onnx_graph import IR_VERSION, OPSET
from serving.repository import ModelRepository
from serving.scorer import score_sessions
from serving.triton_scorer import request_tensors
from tests.serving.conftest import some_sessions, write_model

SHAPES = {
    "one head": {},
    "two heads, positions from the end": {"heads": 2, "positions": "end"},
    "own clicks added": {"own_clicks": "added"},
    "one layer": {"layers": 1},
    "three objectives": {"objectives": ("click", "cart", "order")},
    "one click": {"max_length": 1},
}


def a_request(items: int, objectives: int, longest: int, k: int) -> ScoringRequest:
    """40 sessions of all lengths, half of the items allowed, three excluded."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, longest + 1, 40)
    clicks = generator.integers(1, items + 1, (40, longest)) * (np.arange(longest) < lengths[:, None])
    pi = generator.dirichlet(np.ones(objectives), 40).astype(np.float32)
    excluded = np.stack([generator.permutation(items)[:3] + 1 for _ in range(40)])
    return ScoringRequest(clicks, lengths, pi, k, excluded, generator.random(items) < 0.5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("block_items", [64, 1000])
def test_it_gives_the_lists_of_the_model(tmp_path: Path, shape: dict[str, object], block_items: int) -> None:
    items, k = 203, 12  # no multiple of eight, several blocks, a last one that is shorter than k and the exclusions
    model_dir = write_model(tmp_path / "model", items=items, **shape)  # type: ignore[arg-type]
    if "own_clicks" in shape:  # they start at nothing
        weights = load_file(model_dir / "weights.safetensors")
        save_file({**weights, "own_clicks": torch.tensor([0.3, -0.7])}, model_dir / "weights.safetensors")
    manifest = export_version(model_dir, tmp_path / "1", backend=ONNX_BACKEND, block_items=block_items)
    session = onnxruntime.InferenceSession(tmp_path / "1" / "model.onnx")
    model = LiveModel("m", 1, "first", manifest.vocabulary_hash, items, manifest.max_length, backend=ONNX_BACKEND)
    request = a_request(items, manifest.objectives, manifest.max_length, k)
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


def test_equal_scores_are_ordered_by_index(tmp_path: Path) -> None:
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


def test_the_weights_are_those_of_the_safetensors_file(tmp_path: Path) -> None:
    model_dir = write_model(tmp_path / "model")
    manifest = export_version(model_dir, tmp_path / "1", backend=ONNX_BACKEND)
    assert set(manifest.files) - set(CARRIED_FILES) == {"model.onnx", "weights.safetensors"}
    graph = onnx.load(tmp_path / "1" / "model.onnx", load_external_data=False)
    # What Triton 24.10's onnxruntime (1.19) reads.
    assert (graph.ir_version, graph.opset_import[0].version) == (IR_VERSION, OPSET)
    assert IR_VERSION <= 10
    assert OPSET <= 21
    outside = [tensor for tensor in graph.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        "weights.safetensors"
    }
    assert (tmp_path / "1" / "model.onnx").stat().st_size < 100_000


def test_a_deployment_of_it_and_the_way_back_to_the_other_backend(
    tmp_path: Path, model_dir: Path, vocabulary: Vocabulary
) -> None:
    sessions = some_sessions(vocabulary, 120)
    options = {"vocabulary": vocabulary, "assortment": vocabulary.item_ids.gather_every(2), "exclude_clicked": True}
    expected = pl.concat(score_sessions(sessions, "0.25", 7, scorer=InProcessScorer(model_dir), **options))
    repository = ModelRepository(tmp_path / "repository")
    with InProcessServer(repository.root) as server:
        deploy(model_dir, server, golden_pi=["0.50"])
        done = deploy(model_dir, server, golden_pi=["0.25"], backend=ONNX_BACKEND)
        assert (done.version, done.golden_lists) == (2, 257)
        assert server.live_model().backend == ONNX_BACKEND
        found = pl.concat(score_sessions(sessions, "0.25", 7, scorer=server.scorer(), **options))
        assert found.drop("score").equals(expected.drop("score"))
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-5)

        config = text_format.Parse((repository.folder / "config.pbtxt").read_text(), pb.ModelConfig())
        assert (config.backend, config.max_batch_size) == (ONNX_BACKEND, 0)
        assert {one.name: list(one.dims) for one in [*config.input, *config.output]} == {
            "items": [-1, -1],
            "lengths": [-1, 1],
            "pi": [-1, 2],
            "k": [-1, 1],
            "excluded": [-1, -1],
            "assortment": [63],
            "item_index": [-1, -1],
            "score": [-1, -1],
        }
        assert list(config.version_policy.specific.versions) == [2]  # the other backend's version cannot stay
        (warmup,) = config.model_warmup
        for name, entry in warmup.inputs.items():
            held = (repository.folder / "warmup" / entry.input_data_file).stat().st_size
            assert held == np.prod(entry.dims) * {"FP32": 4, "INT32": 4, "UINT8": 1}.get(
                pb.DataType.Name(entry.data_type).removeprefix("TYPE_"), 8
            ), name

        rollback(1, server)
        assert server.live_model().backend == "python"
    assert json.loads((repository.version_folder(2) / "manifest.json").read_text())["backend"] == ONNX_BACKEND


def test_an_unknown_backend_is_refused(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(InputError, match="unknown backend"):
        export_version(model_dir, tmp_path / "1", backend="tensorrt")
