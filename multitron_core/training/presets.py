"""Presets: which settings are right for which data.

`diginetica`, `yoochoose` and `otto` are ours; `official` is the paper's recipe (its Diginetica run, lambda 0.2), for
comparison: it starts very slowly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.preference.keys import preference_key
from multitron_core.training.config import TrainingConfig
from multitron_core.utils.settings import from_dict


@dataclass(frozen=True)
class Preset:
    """What `training.train` takes.

    Args:
        name: for people; it changes nothing.
        training: how to train.
        model: settings of `ModelConfig` that differ from its defaults; `items` comes from the vocabulary.
    """

    name: str
    training: TrainingConfig = field(default_factory=TrainingConfig)
    model: Mapping[str, Any] = field(default_factory=dict)

    def model_config(self, items: int) -> ModelConfig:
        """The shape of a model for a catalogue of `items`."""
        return from_dict(ModelConfig, {"items": items, **self.model})

    def changed(self, *, model: Mapping[str, Any] | None = None, training: Mapping[str, Any] | None = None) -> Preset:
        """The same preset with some settings changed.

        Raises:
            InputError: a setting that does not exist or is out of range.
        """
        settings = {**dataclasses.asdict(self.training), **(training or {})}
        return Preset(self.name, from_dict(TrainingConfig, settings), {**self.model, **(model or {})})

    def with_objectives(self, names: Sequence[str]) -> Preset:
        """The same preset for other objectives: beta has a half for each, validation looks at each end and the middle.

        Raises:
            InputError: an objective that does not exist.
        """
        self.training.objectives(names)
        k = len(names)
        if k == len(self.training.beta):
            return self.changed(model={"objectives": tuple(names)})
        ends = [preference_key([float(i == j) for j in range(k)]) for i in range(k)]
        return self.changed(
            model={"objectives": tuple(names)},
            training={"beta": (0.5,) * k, "validation_pi": (*ends, preference_key([1.0 / k] * k))},
        )


def demo() -> Preset:
    """A shop of some 20 thousand sessions and 2 thousand items, in less than a minute on two cores.

    Small batches, a high rate that falls and ten epochs: so few sessions must give as many steps as can be. None is
    held out for validation: the most recent ones teach the most, and so few would say little.
    """
    return Preset(
        "demo",
        TrainingConfig(
            epochs=10,
            validation_share=0.0,
            batch_sessions=64,
            learning_rate=4e-3,
            schedule="cosine",
            uniform_negatives=512,
            in_batch_negatives=16,
            threads=1,
            order_loss="ordered_softmax",
            cart_loss="ordered_softmax",
        ),
        {"dimension": 64, "layers": 2, "dropout": 0.15},
    )


def diginetica() -> Preset:
    """Diginetica: 42 thousand items, 186 thousand sessions; some 25 minutes on one core.

    A rate that falls and dropout of a fifth were found on the last part of the training sessions; a quarter of the
    paper's uniform negatives saves time.
    The order objective ranks and is calibrated: its binary part slows the first epochs and keeps the model from knowing
    all sessions by heart. With half of the ranking part's weight on the few ordered steps it still knows these. What
    makes clicks and orders differ in rank is how often a visitor comes back to what was seen: the model's own clicks.
    """
    return Preset(
        "diginetica",
        TrainingConfig(
            epochs=6,
            keep="last",
            warmup_steps=200,
            schedule="cosine",
            uniform_negatives=4096,
            order_loss="ranked_bce",
            cart_loss="ranked_bce",
            ordered_share=0.15,
        ),
        {"item_scale": 0.01, "dropout": 0.2, "own_clicks": "added"},
    )


def yoochoose() -> Preset:
    """Yoochoose: 37 thousand items, 7.9 million sessions. What ranks clicks and orders was found on Diginetica."""
    return Preset(
        "yoochoose",
        TrainingConfig(
            epochs=10,
            warmup_steps=200,
            schedule="cosine",
            order_loss="ranked_bce",
            cart_loss="ranked_bce",
            ordered_share=0.15,
            checkpoint_steps=2000,
            validation_share=0.002,
        ),
        {"item_scale": 0.01, "own_clicks": "added"},
    )


def otto() -> Preset:
    """OTTO: 1.8 million items, 12.9 million sessions; lazy Adam, since a step touches one item in a hundred. What ranks
    clicks and orders was found on Diginetica."""
    return Preset(
        "otto",
        TrainingConfig(
            epochs=10,
            warmup_steps=200,
            schedule="cosine",
            order_loss="ranked_bce",
            cart_loss="ranked_bce",
            ordered_share=0.15,
            optimiser="lazy_adam",
            checkpoint_steps=10_000,
            validation_share=0.001,
        ),
        {"item_scale": 0.01, "own_clicks": "added"},
    )


def official() -> Preset:
    """The paper's recipe as its authors' code has it."""
    return Preset(
        "official",
        TrainingConfig(
            epochs=20,
            learning_rate=1e-4,
            session_order="chronological",
            pi_per="batch",
            collisions="official",
            regulariser="released",
            validation_share=0.0,
            keep="last",
        ),
        {"positions": "end", "initialisation": "xavier", "item_norm": "free"},
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    preset.__name__: preset for preset in (demo, diginetica, yoochoose, otto, official)
}


def named(name: str, *, model: Mapping[str, Any] | None = None, training: Mapping[str, Any] | None = None) -> Preset:
    """A preset by its name, with some settings changed.

    Raises:
        InputError: no preset of that name, or a setting that does not exist or is out of range.
    """
    if name not in PRESETS:
        raise InputError("unknown preset", found=name, hint=f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]().changed(model=model, training=training)
