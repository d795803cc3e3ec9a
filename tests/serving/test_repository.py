"""The model repository: configuration, versions and settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError
from serving.export import export_version
from serving.interface import ONNX_BACKEND, PYTHON_BACKEND
from serving.repository import (
    InstanceSettings,
    ModelRepository,
    live_model_of,
    make_config,
    settings_of,
    write_warmup,
)

SETTINGS = InstanceSettings(instances=2, threads_per_instance=3, max_batch_size=32)


@pytest.fixture
def model(repository: Path) -> ModelRepository:
    return ModelRepository(repository)


def test_make_config_describes_the_live_version(model: ModelRepository) -> None:
    config = make_config(model, live=1, loaded=[1], settings=SETTINGS)
    assert (config.backend, config.max_batch_size, config.instance_group[0].count) == (PYTHON_BACKEND, 32, 2)
    assert {tensor.name: list(tensor.dims) for tensor in [*config.input, *config.output]} == {
        "items": [-1],
        "lengths": [1],
        "pi": [2],
        "k": [1],
        "excluded": [-1],
        "item_index": [-1],
        "score": [-1],
    }
    assert settings_of(config) == SETTINGS
    live = live_model_of(config)
    assert (live.model_name, live.version, live.model_version, live.items) == ("multitron", 1, "first", 500)
    model.write_config(config)
    assert model.read_config() == config


def test_make_config_for_onnxruntime_has_no_batch_dimension(model: ModelRepository, model_dir: Path) -> None:
    manifest = export_version(model_dir, model.version_folder(2), backend=ONNX_BACKEND)
    config = make_config(model, live=2, loaded=[2], settings=SETTINGS)
    assert (config.backend, config.max_batch_size) == (ONNX_BACKEND, 0)
    assert {tensor.name: list(tensor.dims) for tensor in [*config.input, *config.output]} == {
        "items": [-1, -1],
        "lengths": [-1, 1],
        "pi": [-1, 2],
        "k": [-1, 1],
        "excluded": [-1, -1],
        "assortment": [63],
        "item_index": [-1, -1],
        "score": [-1, -1],
    }
    write_warmup(model, 2, manifest)
    (warmup,) = config.model_warmup
    sizes = {"FP32": 4, "INT32": 4, "INT64": 8, "UINT8": 1}
    for name, entry in warmup.inputs.items():
        stored = (model.folder / "warmup" / entry.input_data_file).stat().st_size
        assert stored == np.prod(entry.dims) * sizes[pb.DataType.Name(entry.data_type).removeprefix("TYPE_")], name


def test_read_config_refuses_what_no_deployment_wrote(model: ModelRepository) -> None:
    path = model.folder / "config.pbtxt"
    path.write_text("not a configuration")
    with pytest.raises(InputError, match=r"config\.pbtxt cannot be read"):
        model.read_config()
    path.write_text(text_format.MessageToString(pb.ModelConfig(name="multitron")))
    with pytest.raises(InputError, match="not deployed by this project"):
        model.read_config()


def test_live_model_of_a_foreign_configuration() -> None:
    with pytest.raises(InputError, match="not deployed by this project"):
        live_model_of(pb.ModelConfig(name="resnet"))


def test_model_repository_before_the_first_deployment(tmp_path: Path) -> None:
    empty = ModelRepository(tmp_path)
    assert empty.versions() == []
    assert empty.read_config() is None


def test_prune_removes_the_oldest_versions_and_their_warmup(model: ModelRepository) -> None:
    for version in (2, 3, 10):
        model.version_folder(version).mkdir()
        model.warmup_folder(version).mkdir()
    assert model.versions() == [1, 2, 3, 10]
    assert model.prune(keep=1) == [2, 3], "the live version 1 stays"
    assert model.versions() == [1, 10]
    assert sorted(path.name for path in (model.folder / "warmup").iterdir()) == ["1", "10"]


def test_locked_excludes_others_and_removes_what_was_left(model: ModelRepository) -> None:
    model.candidate_folder(2).mkdir()
    with model.locked():
        assert not model.candidate_folder(2).exists()
        with pytest.raises(InputError, match="another deployment is under way"), model.locked():
            pass
    with model.locked():
        pass
