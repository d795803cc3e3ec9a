from __future__ import annotations

import json
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.description import ModelDescription

ENTRIES = {
    "preset": "demo",
    "model": {"items": 7, "dimension": 8, "objectives": ["click", "order"]},
    "training": {"epochs": 3},
    "vocabulary_hash": "hash",
    "fingerprint": "print",
    "version": "v1",
    "epoch": 2,
    "rates": {"click": 1.0, "order": 0.1},
}


class TestModelDescription:
    def test_read_gives_all_entries(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(ENTRIES))
        found = ModelDescription.read(tmp_path)
        assert found == ModelDescription(
            model=ModelConfig(items=7, dimension=8),
            training={"epochs": 3},
            vocabulary_hash="hash",
            version="v1",
            preset="demo",
            fingerprint="print",
            extra={"epoch": 2, "rates": {"click": 1.0, "order": 0.1}},
        )

    def test_to_dict_comes_back(self, tmp_path: Path) -> None:
        imported = ModelDescription(ModelConfig(items=7), {"epochs": 3}, "hash", "v1")
        assert list(imported.to_dict()) == ["model", "training", "vocabulary_hash", "version"]
        (tmp_path / "config.json").write_text(json.dumps(imported.to_dict()))
        assert ModelDescription.read(tmp_path) == imported

    @pytest.mark.parametrize("text", ["{", "[]", "3", '{"version": "v1"}'])
    def test_read_refuses_another_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"not a model folder; where: .*config\.json"):
            ModelDescription.read(tmp_path)

    @pytest.mark.parametrize("name", ["model", "training", "vocabulary_hash", "version"])
    def test_read_names_a_missing_entry(self, tmp_path: Path, name: str) -> None:
        entries = {key: value for key, value in ENTRIES.items() if key != name}
        (tmp_path / "config.json").write_text(json.dumps(entries))
        with pytest.raises(InputError, match=f"no entry '{name}'"):
            ModelDescription.read(tmp_path)

    def test_read_names_a_wrong_model_setting(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({**ENTRIES, "model": {"items": 0}}))
        with pytest.raises(InputError, match="ModelConfig, items"):
            ModelDescription.read(tmp_path)
