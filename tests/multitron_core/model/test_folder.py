from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model, weights_version, write_model_folder, write_untrained_model
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.vocabulary import Vocabulary

CONFIG = ModelConfig(items=7, dimension=8, layers=1, max_length=4)
VOCABULARY = Vocabulary(pl.Series(range(7), dtype=pl.Int64))


def description(version: str = "v1") -> ModelDescription:
    return ModelDescription(CONFIG, {"epochs": 3}, VOCABULARY.hash, version, preset="demo")


def test_write_model_folder_is_read_back_and_replaced(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, folder = MultiTRON(CONFIG).eval(), tmp_path / "model"
    for version in ("v1", "v2"):
        history = [{"epoch": 1.0, "train_loss": 0.5}]
        write_model_folder(folder, model.state_dict(), description(version), VOCABULARY, history=history)
        assert ModelDescription.read(folder) == description(version)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert pl.read_parquet(folder / "metrics.parquet").to_dicts() == history
    assert Vocabulary.load(folder / "vocabulary.parquet").hash == VOCABULARY.hash
    loaded = load_model(folder)
    assert not loaded.training
    arguments = torch.tensor([[3, 1]]), torch.tensor([2]), torch.tensor([0.3, 0.7])
    assert torch.equal(loaded(*arguments), model(*arguments))


def test_write_model_folder_without_history_has_no_metrics(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "model", {}, description(), VOCABULARY)
    assert not (tmp_path / "model" / "metrics.parquet").exists()


def test_load_model_refuses_damaged_and_missing_files(tmp_path: Path) -> None:
    folder = write_untrained_model(tmp_path / "model", CONFIG, VOCABULARY)
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=str(folder)):
        load_model(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="weights cannot be read"):
        load_model(folder)
    with pytest.raises(InputError, match="nowhere"):
        load_model(tmp_path / "nowhere")


def test_load_model_refuses_weights_of_another_shape(tmp_path: Path) -> None:
    weights = MultiTRON(CONFIG.changed(dimension=4)).state_dict()
    write_model_folder(tmp_path / "model", weights, description(), VOCABULARY)
    with pytest.raises(InputError, match="weights cannot be read"):
        load_model(tmp_path / "model")


def test_weights_version_by_hand() -> None:
    weights = {"b": torch.tensor([2.0]), "a": torch.tensor([[1.0, 3.0], [2.0, 4.0]]).T}
    digest = hashlib.sha256(b"identity")
    for name, values in (("a", [1.0, 2.0, 3.0, 4.0]), ("b", [2.0])):
        digest.update(name.encode() + torch.tensor(values).numpy().tobytes())
    assert weights_version("identity", weights) == digest.hexdigest()[:12]


def test_write_untrained_model_follows_its_seed(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    folders = [
        write_untrained_model(tmp_path / name, CONFIG, VOCABULARY, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state is unchanged"
    first, same, other = (load_model(folder).state_dict() for folder in folders)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert ModelDescription.read(folders[0]).version == "untrained"
