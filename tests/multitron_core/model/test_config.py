from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig


class TestModelConfig:
    def test_json_is_read(self) -> None:
        config = ModelConfig(items=7, dimension=8, heads=2, objectives=("click", "cart", "order"))
        assert ModelConfig(**json.loads(config.model_dump_json())) == config

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({}, "ModelConfig, items"),
            ({"items": 0}, "ModelConfig, items"),
            ({"items": 1, "dimension": 9, "heads": 2}, "heads that divide dimension"),
            ({"items": 1, "dropout": 1.5}, "ModelConfig, dropout"),
            ({"items": 1, "dropout": float("nan")}, "ModelConfig, dropout"),
            ({"items": 1, "positions": "middle"}, "ModelConfig, positions.*'start' or 'end'"),
            ({"items": 1, "objectives": ["click"]}, "ModelConfig, objectives.*two or more|two or more.*objectives"),
            ({"items": 1, "objectives": ["click", "click"]}, "two or more distinct"),
            ({"items": 1, "dimensions": 8}, r"ModelConfig, dimensions.*did you mean dimension\?"),
            ({"items": "many"}, "ModelConfig, items.*valid integer"),
            ({"items": 1, "dropout": "0.1"}, "ModelConfig, dropout.*valid number"),
            ({"items": 1, "heads": True}, "ModelConfig, heads"),
            ({"items": 1, "objectives": [1, 2]}, "ModelConfig, objectives"),
        ],
    )
    def test_a_wrong_setting_is_named(self, settings: dict[str, object], named: str) -> None:
        with pytest.raises(InputError, match=f"(?s){named}"):
            ModelConfig(**settings)  # type: ignore[arg-type]

    def test_changed_checks_the_whole_config(self) -> None:
        config = ModelConfig(items=7, dimension=8, heads=2)
        assert config.changed(layers=1) == ModelConfig(items=7, dimension=8, heads=2, layers=1)
        with pytest.raises(InputError, match="heads that divide"):
            config.changed(dimension=9)

    def test_a_config_is_immutable(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            ModelConfig(items=7).items = 8
