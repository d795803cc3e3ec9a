from __future__ import annotations

import json

import pytest

from multitron_core.errors import InputError
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig


@pytest.mark.parametrize("name", ["demo", "diginetica", "yoochoose", "otto", "official"])
def test_named_gives_every_preset(name: str) -> None:
    found = presets.named(name)
    assert found.name == name
    assert found.model_config(100).items == 100
    assert TrainingConfig(**json.loads(json.dumps(found.training.flat()))) == found.training


def test_official_has_the_papers_settings() -> None:
    official = presets.official()
    assert official.model_config(10).positions == "end"
    assert official.model_config(10).initialisation == "xavier"
    training, negatives = official.training, official.training.negatives
    assert training.optimiser.learning_rate == 1e-4
    assert (training.data.session_order, training.data.pi_per) == ("chronological", "batch")
    assert (negatives.uniform_negatives, negatives.in_batch_negatives, negatives.kept_negatives) == (16_384, 32, 100)
    assert negatives.collisions == "official"
    assert training.losses.regulariser == "released"
    assert training.validation.validation_share == 0.0


def test_named_changes_some_settings() -> None:
    found = presets.named("demo", model={"layers": 1}, training={"epochs": 2})
    assert found.model_config(5).layers == 1
    assert found.model_config(5).dimension == presets.demo().model_config(5).dimension
    assert found.training == presets.demo().training.changed(epochs=2)


def test_named_refuses_unknown_names() -> None:
    with pytest.raises(InputError, match="diginetica"):
        presets.named("digi")
    with pytest.raises(InputError, match=r"did you mean schedule\.epochs"):
        presets.named("demo", training={"epoch": 2})
    with pytest.raises(InputError, match=r"did you mean layers"):
        presets.named("demo", model={"layer": 2}).model_config(5)


def test_preset_with_objectives_fits_beta_and_validation() -> None:
    two = presets.demo().with_objectives(("click", "cart"))
    assert two.model_config(5).objectives == ("click", "cart")
    assert two.training == presets.demo().training
    three = presets.demo().with_objectives(("click", "cart", "order"))
    assert three.training.data.beta == (0.5, 0.5, 0.5)
    assert three.training.validation.validation_pi == (
        "1.00:0.00:0.00",
        "0.00:1.00:0.00",
        "0.00:0.00:1.00",
        "0.34:0.33:0.33",
    )
    with pytest.raises(InputError, match="unknown objectives"):
        presets.demo().with_objectives(("click", "wishlist"))
