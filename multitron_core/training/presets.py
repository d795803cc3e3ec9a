"""Presets: training and model settings per data set.

`diginetica`, `yoochoose` and `otto` are ours. `official` is the paper's recipe (its Diginetica run, lambda 0.2), for
comparison; its losses fall very slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.preference.keys import preference_key
from multitron_core.training.config import TrainingConfig


@dataclass(frozen=True)
class Preset:
    """The settings that `train` takes.

    Args:
        name: shown to people; it changes no number.
        training: how to train.
        model: settings of `ModelConfig` that differ from its defaults; `items` is the size of the vocabulary.
    """

    name: str
    training: TrainingConfig = field(default_factory=TrainingConfig)
    model: Mapping[str, Any] = field(default_factory=dict)

    def model_config(self, items: int) -> ModelConfig:
        """The shape of a model for a catalogue of `items`.

        Raises:
            InputError: unknown or wrong model settings.
        """
        return ModelConfig(**{"items": items, **self.model})

    def changed(self, *, model: Mapping[str, Any] | None = None, training: Mapping[str, Any] | None = None) -> Preset:
        """The same preset with some settings changed.

        Args:
            model: settings of `ModelConfig`; `model_config` checks them.
            training: settings of `TrainingConfig`, by any of their names: flat, dotted or in sections.

        Raises:
            InputError: unknown or wrong training settings.
        """
        return Preset(self.name, self.training.changed(**(training or {})), {**self.model, **(model or {})})

    def with_objectives(self, names: Sequence[str]) -> Preset:
        """The same preset for other objectives.

        Where their number differs from the preset's, beta is 0.5 for each, and validation measures the preference of
        each objective alone and that of equal weights.

        Raises:
            InputError: an unknown objective.
        """
        self.training.objectives(names)
        k = len(names)
        if k == len(self.training.data.beta):
            return self.changed(model={"objectives": tuple(names)})
        ends = [preference_key([float(i == j) for j in range(k)]) for i in range(k)]
        return self.changed(
            model={"objectives": tuple(names)},
            training={"beta": (0.5,) * k, "validation_pi": (*ends, preference_key([1.0 / k] * k))},
        )


def demo() -> Preset:
    """A shop of about 20 thousand sessions and 2 thousand items; trains in less than a minute on two cores.

    Small data yields few optimiser steps: small batches, a high decaying rate, ten epochs. No session is held out for
    validation: the most recent ones are the most informative, and the loss of so few is noisy.
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
    """Diginetica: 42 thousand items, 186 thousand sessions; trains in about 25 minutes on one core.

    The decaying rate and dropout 0.2 were chosen on the last part of the training sessions; a quarter of the paper's
    uniform negatives saves time. The order objective ranks and is calibrated: its binary part slows the first epochs
    and prevents overfitting of all sessions. With ordered_share 0.5 it still overfits ordered steps. Clicks and orders
    rank differently by how often visitors return to items they clicked before: own_clicks "added".
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
    """Yoochoose: 37 thousand items, 7.9 million sessions. The loss settings were chosen on Diginetica."""
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
    """OTTO: 1.8 million items, 12.9 million sessions; lazy Adam, since a step touches one item in a hundred. The loss
    settings were chosen on Diginetica."""
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
    """The paper's recipe, with the settings of its authors' code."""
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
        InputError: no preset of that name, or unknown or wrong training settings.
    """
    if name not in PRESETS:
        raise InputError("unknown preset", found=name, hint=f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]().changed(model=model, training=training)
