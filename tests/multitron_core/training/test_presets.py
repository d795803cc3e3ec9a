import dataclasses
import json

import pytest

from multitron_core.errors import InputError
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig
from multitron_core.utils.settings import from_dict, to_json


@pytest.mark.parametrize("name", ["demo", "diginetica", "yoochoose", "otto", "official"])
def test_every_preset_makes_a_model_and_survives_json(name):
    found = presets.named(name)
    assert found.name == name
    assert found.model_config(100).items == 100
    assert from_dict(TrainingConfig, json.loads(to_json(found.training))) == found.training


def test_the_official_preset_is_the_papers():
    official = presets.official()
    assert official.model_config(10).positions == "end"
    assert official.model_config(10).initialisation == "xavier"
    training = official.training
    assert (training.learning_rate, training.session_order, training.pi_per) == (1e-4, "chronological", "batch")
    assert (training.uniform_negatives, training.in_batch_negatives, training.kept_negatives) == (16_384, 32, 100)
    assert (training.collisions, training.regulariser, training.validation_share) == ("official", "released", 0.0)


def test_a_preset_with_some_settings_changed():
    found = presets.named("demo", model={"layers": 1}, training={"epochs": 2})
    assert found.model_config(5).layers == 1
    assert found.model_config(5).dimension == presets.demo().model_config(5).dimension
    assert found.training == dataclasses.replace(presets.demo().training, epochs=2)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="diginetica"):
        presets.named("digi")
    with pytest.raises(InputError, match="epoch"):
        presets.named("demo", training={"epoch": 2})
    with pytest.raises(InputError, match="layer"):
        presets.named("demo", model={"layer": 2}).model_config(5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"validation_share": 1.0},
        {"beta": (0.5,)},
        {"beta": (0.5, 0.0)},
        {"validation_pi": ("0.5",)},
        {"validation_pi": ()},
        {"order_loss": "hinge"},
        {"optimiser": "sgd"},
        {"regularisation": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        TrainingConfig(**wrong)
