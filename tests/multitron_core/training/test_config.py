from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import write_model_folder
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training.config import FLAT_NAMES, OptimiserSettings, TrainingConfig, training_config
from tests.multitron_core.training.examples import shop


class TestTrainingConfig:
    @pytest.mark.parametrize(
        "settings",
        [
            {"learning_rate": 0.5, "optimiser": "lazy_adam"},
            {"optimiser.learning_rate": 0.5, "optimiser.algorithm": "lazy_adam"},
            {"optimiser": {"learning_rate": 0.5, "algorithm": "lazy_adam"}},
            {"optimiser": OptimiserSettings(learning_rate=0.5, algorithm="lazy_adam")},
            {"optimiser": {"learning_rate": 0.5}, "optimiser.algorithm": "lazy_adam"},
        ],
    )
    def test_a_setting_has_three_names(self, settings: dict[str, object]) -> None:
        config = TrainingConfig(**settings)
        assert (config.optimiser.learning_rate, config.optimiser.algorithm) == (0.5, "lazy_adam")
        assert config.schedule == TrainingConfig().schedule

    def test_every_setting_has_a_flat_name(self) -> None:
        sections = {name: tuple(dict(section)) for name, section in TrainingConfig()}
        places = [(section, name) for section, names in sections.items() for name in names]
        assert sorted(FLAT_NAMES.values()) == sorted(places)
        assert len(FLAT_NAMES) == 34

    def test_json_of_flat_names_and_of_sections_is_read(self) -> None:
        config = TrainingConfig(epochs=3, beta=(1.0, 2.0), trained_pi="0.25", schedule="cosine")
        assert TrainingConfig(**json.loads(json.dumps(config.flat()))) == config
        assert TrainingConfig(**json.loads(config.model_dump_json())) == config

    def test_numbers_stay_as_given(self) -> None:
        # 1 and 1.0 give different fingerprints.
        assert json.dumps(TrainingConfig(gradient_clip=1, beta=[1, 2.0]).flat()["beta"]) == "[1, 2.0]"
        assert json.dumps(TrainingConfig(gradient_clip=1).flat()["gradient_clip"]) == "1"

    def test_changed_keeps_all_other_settings(self) -> None:
        config = TrainingConfig(epochs=3, schedule="cosine", learning_rate=0.5)
        changed = config.changed(optimiser={"gradient_clip": 2.0}, epochs=4, **{"data.seed": 9})
        assert changed.flat() == config.flat() | {"gradient_clip": 2.0, "epochs": 4, "seed": 9}
        assert config.schedule.epochs == 3

    @pytest.mark.parametrize(
        "settings",
        [
            {"epochs": 1, "schedule": {"epochs": 2}},
            {"schedule.epochs": 1, "epochs": 1},
        ],
    )
    def test_a_setting_given_twice_is_refused(self, settings: dict[str, object]) -> None:
        with pytest.raises(InputError, match=r"given twice.*schedule\.epochs"):
            TrainingConfig(**settings)
        with pytest.raises(InputError, match=r"given twice.*schedule\.epochs"):
            TrainingConfig().changed(**settings)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epochs", 0),
            ("epochs", 1.0),
            ("epochs", True),
            ("epochs", "3"),
            ("warmup_steps", -1),
            ("learning_rate", 0.0),
            ("learning_rate", float("nan")),
            ("learning_rate", float("inf")),
            ("learning_rate", "1e-3"),
            ("gradient_clip", -1.0),
            ("gradient_clip", float("nan")),
            ("validation_share", 1.0),
            ("beta", (0.5,)),
            ("beta", (0.5, 0.0)),
            ("beta", ("0.5", 0.5)),
            ("ordered_share", 0.0),
            ("popularity_correction", -0.1),
            ("popularity_correction", 1.1),
            ("popularity_correction", float("nan")),
            ("popularity_correction", "full"),
            ("order_loss", "hinge"),
            ("regulariser", "dropout"),
            ("scalarisation", "sum"),
            ("optimiser", "sgd"),
            ("schedule", "linear"),
            ("regularisation", -1.0),
            ("trained_pi", 0.5),
            ("cuda_graphs", 1),
        ],
    )
    def test_a_wrong_value_is_named(self, name: str, value: object) -> None:
        with pytest.raises(InputError, match=re.escape(f"TrainingConfig, {'.'.join(FLAT_NAMES[name])}")):
            TrainingConfig(**{name: value})

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"validation_pi": ("0.5",)}, "validation.validation_pi"),
            ({"validation_pi": ()}, "validation.validation_pi"),
            ({"beta": (1.0, 1.0, 1.0)}, "validation.validation_pi"),
            ({"trained_pi": "0.5"}, "data.trained_pi"),
        ],
    )
    def test_preferences_must_fit_beta(self, settings: dict[str, object], name: str) -> None:
        with pytest.raises(InputError, match=re.escape(f"TrainingConfig, {name}")):
            TrainingConfig(**settings)

    def test_all_wrong_settings_are_listed(self) -> None:
        with pytest.raises(InputError) as caught:
            TrainingConfig(epochs=0, learning_rat=1.0, precision="float16", **{"losses.order_los": "bce"})
        first, *lines = str(caught.value).splitlines()
        assert first == "4 settings are wrong"
        (unknown,) = [line for line in lines if "learning_rat" in line]
        assert "did you mean optimiser.learning_rate?" in unknown
        (inside,) = [line for line in lines if "order_los" in line]
        assert "did you mean losses.order_loss?" in inside
        (epochs,) = [line for line in lines if "schedule.epochs" in line]
        assert epochs.endswith("found: 0; hint: it should be greater than or equal to 1")
        (precision,) = [line for line in lines if "runtime.precision" in line]
        assert "'auto', 'float32' or 'bfloat16'" in precision

    def test_objectives_have_the_losses_of_the_settings(self) -> None:
        config = TrainingConfig(cart_loss="ranked_bce", ordered_share=0.25)
        click, cart, order = config.objectives(("click", "cart", "order"))
        assert (click.loss, cart.loss, order.loss) == ("softmax", "ranked_bce", "bce")
        assert cart.share == 0.25
        with pytest.raises(InputError, match="unknown objectives"):
            config.objectives(("order", "click"))


@pytest.mark.parametrize("in_sections", [False, True])
def test_training_config_reads_both_shapes(tmp_path: Path, in_sections: bool) -> None:
    config, vocabulary = TrainingConfig(epochs=3, optimiser="lazy_adam"), shop().vocabulary
    training = json.loads(config.model_dump_json()) if in_sections else config.flat()
    description = ModelDescription(ModelConfig(items=60), training, vocabulary.hash, "v1")
    write_model_folder(tmp_path / "model", {}, description, vocabulary)
    assert training_config(tmp_path / "model") == config
    with pytest.raises(InputError, match="not a model folder"):
        training_config(tmp_path / "nowhere")
    assert Vocabulary.load(tmp_path / "model" / "vocabulary.parquet").hash == vocabulary.hash
