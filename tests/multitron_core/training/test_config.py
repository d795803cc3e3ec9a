from __future__ import annotations

import json

import pytest

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.training.config import TrainingConfig
from multitron_core.utils.settings import from_dict, to_json


def test_a_config_comes_back_from_json() -> None:
    config = ModelConfig(items=7, dimension=8, heads=2, objectives=("click", "cart", "order"))
    assert from_dict(ModelConfig, json.loads(to_json(config))) == config


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"items": 0}, "items"),
        ({"items": 1, "dimension": 9, "heads": 2}, "heads"),
        ({"items": 1, "dropout": 1.5}, "dropout"),
        ({"items": 1, "positions": "middle"}, "positions"),
        ({"items": 1, "objectives": ["click"]}, "objectives"),
        ({"items": 1, "dimensions": 8}, "dimensions"),
        ({"items": "many"}, "ModelConfig.items.*valid integer"),
        ({"items": 1, "dropout": "0.1"}, "ModelConfig.dropout.*valid number"),
        ({"items": 1, "heads": True}, "ModelConfig.heads"),
        ({"items": 1, "objectives": [1, 2]}, "ModelConfig.objectives"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, named: str) -> None:
    with pytest.raises(InputError, match=f"(?s){named}"):
        from_dict(ModelConfig, settings)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "full"])
def test_a_popularity_correction_is_a_share(strength: object) -> None:
    with pytest.raises(InputError, match=r"TrainingConfig\.popularity_correction"):
        from_dict(TrainingConfig, {"popularity_correction": strength})
