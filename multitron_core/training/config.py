"""How a model is trained: settings in sections, stored with the weights as JSON.

The values for a data set are in `presets`. The defaults are ours; those of the paper are `presets.official()`, and a
comment names them where they differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from multitron_core.errors import InputError
from multitron_core.losses.objective_losses import EVENT_LOSSES
from multitron_core.losses.regularisers import REGULARISERS
from multitron_core.model.description import ModelDescription
from multitron_core.preference.keys import preference, preferences
from multitron_core.preference.objectives import Objective, objectives_of
from multitron_core.utils.settings import Config, Count, Number, Positive, Section


def _one_of(names: Mapping[str, object]) -> AfterValidator:
    """A check that a name is a key of `names`."""

    def check(name: str) -> str:
        if name not in names:
            raise InputError("unknown name", found=name, hint=f"use one of {', '.join(names)}")
        return name

    return AfterValidator(check)


EventLoss = Annotated[str, _one_of(EVENT_LOSSES)]
Share = Annotated[Number, Field(ge=0, le=1)]
NonNegative = Annotated[Number, Field(ge=0)]
Finite = Annotated[Number, Field(gt=0, lt=math.inf)]


class DataSettings(Section):
    """Sessions per batch, their order, and the preferences that they are trained at."""

    batch_sessions: Positive = 256
    session_order: Literal["shuffled", "chronological"] = "shuffled"  # official chronological
    seed: Count = 1
    # pi ~ Dirichlet(beta), one number per objective
    beta: Annotated[tuple[Finite, ...], Field(strict=False, min_length=2)] = (0.5, 0.5)
    pi_per: Literal["session", "batch"] = "session"  # official batch
    # One preference for all sessions instead of sampled ones: a single-objective model, "0.00" of clicks alone
    trained_pi: str | None = None


class NegativeSettings(Section):
    """Sampled negatives of the click loss."""

    uniform_negatives: Count = 16_384  # per batch, shared by its sessions
    in_batch_negatives: Count = 32  # per session, from the other sessions of the batch
    kept_negatives: Positive = 100  # per step, those with the highest logits; only these reach the loss
    # Share of log(how often a negative is drawn, see `negatives.log_draw_rates`) that its logit is lowered by in
    # training; 0 as the paper, which corrects nothing
    popularity_correction: Share = 0.0
    collisions: Literal["masked", "official"] = "masked"  # official: the target may be among its own negatives
    # Precision of the search for the kept negatives, not of their loss. auto: bfloat16 where the device multiplies it
    # faster
    negative_search: Literal["auto", "float32", "bfloat16"] = "auto"


class LossSettings(Section):
    """Losses of the objectives, their scalarisation and the regulariser."""

    # A name of `losses.EVENT_LOSSES`: "bce" (the paper's) calibrates the probability of an order, "ordered_softmax"
    # ranks ordered items, "ranked_bce" is the sum of both
    order_loss: EventLoss = "bce"
    cart_loss: EventLoss = "bce"  # the same for carts, where they are an objective
    # Of the losses that rank: share of their weight on the steps with the event; all steps share the rest
    ordered_share: Annotated[Number, Field(gt=0, le=1)] = 0.5
    scalarisation: Literal["linear", "chebyshev"] = "linear"
    # A name of `losses.REGULARISERS`; official "released", another divergence
    regulariser: Annotated[str, _one_of(REGULARISERS)] = "paper"
    regularisation: NonNegative = 0.2  # lambda of equation 4
    regulariser_g: Literal["identity", "softmax"] = "identity"  # g of equation 3, of "paper"


class OptimiserSettings(Section):
    """Adam and its step size."""

    algorithm: Literal["adam", "lazy_adam"] = "adam"  # lazy: a step updates only the item embeddings of its batch
    learning_rate: Finite = 1e-3  # official 1e-4, with which the losses hardly fall in three epochs
    gradient_clip: NonNegative = 0.0  # largest norm of the whole gradient; 0 does not clip


class ScheduleSettings(Section):
    """Number of epochs, and the learning rate over them."""

    epochs: Positive = 20
    warmup_steps: Count = 0  # steps over which the learning rate rises from 0
    shape: Literal["constant", "cosine"] = "constant"  # "cosine" falls to 0 at the last step


class ValidationSettings(Section):
    """Held-out sessions, and which epoch's weights are kept."""

    validation_share: Annotated[Number, Field(ge=0, lt=1)] = 0.02  # most recent training sessions; 0 trains on all
    validation_pi: Annotated[tuple[str, ...], Field(strict=False)] = ("0.00", "0.50", "1.00")
    keep: Literal["best", "last"] = "best"  # epoch whose weights are written, by the validation loss
    patience: Count = 0  # epochs without a better validation loss before training stops; 0 never stops early


class RuntimeSettings(Section):
    """Checkpoints, checks, threads and precision."""

    checkpoint_steps: Positive = 500
    loss_limit: NonNegative = 1_000.0  # a batch loss above this counts as exploded
    # CPU threads, 0 for torch's default. A setting, because another number of threads rounds differently. Small models
    # train faster with one thread, many times faster where other processes keep the cores busy.
    threads: Count = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast on CUDA devices that have it
    # On CUDA: record the kernels of a step once per batch size, then launch them together
    cuda_graphs: bool = True


FLAT_NAMES: dict[str, tuple[str, str]] = {
    "epochs": ("schedule", "epochs"),
    "batch_sessions": ("data", "batch_sessions"),
    "learning_rate": ("optimiser", "learning_rate"),
    "warmup_steps": ("schedule", "warmup_steps"),
    "schedule": ("schedule", "shape"),
    "optimiser": ("optimiser", "algorithm"),
    "gradient_clip": ("optimiser", "gradient_clip"),
    "session_order": ("data", "session_order"),
    "seed": ("data", "seed"),
    "beta": ("data", "beta"),
    "pi_per": ("data", "pi_per"),
    "trained_pi": ("data", "trained_pi"),
    "order_loss": ("losses", "order_loss"),
    "cart_loss": ("losses", "cart_loss"),
    "ordered_share": ("losses", "ordered_share"),
    "scalarisation": ("losses", "scalarisation"),
    "regulariser": ("losses", "regulariser"),
    "regularisation": ("losses", "regularisation"),
    "regulariser_g": ("losses", "regulariser_g"),
    "uniform_negatives": ("negatives", "uniform_negatives"),
    "in_batch_negatives": ("negatives", "in_batch_negatives"),
    "kept_negatives": ("negatives", "kept_negatives"),
    "popularity_correction": ("negatives", "popularity_correction"),
    "collisions": ("negatives", "collisions"),
    "validation_share": ("validation", "validation_share"),
    "validation_pi": ("validation", "validation_pi"),
    "keep": ("validation", "keep"),
    "patience": ("validation", "patience"),
    "checkpoint_steps": ("runtime", "checkpoint_steps"),
    "loss_limit": ("runtime", "loss_limit"),
    "threads": ("runtime", "threads"),
    "precision": ("runtime", "precision"),
    "cuda_graphs": ("runtime", "cuda_graphs"),
    "negative_search": ("negatives", "negative_search"),
}
"""Flat name -> section and name. Version 0.1 had these names in this order. Model folders store them, and fingerprints
and the versions of models hash them, so neither names nor order may change."""


class TrainingConfig(Config):
    """How a model is trained.

    A setting may be given by its section, `optimiser={"learning_rate": 1e-3}`, by its dotted name,
    `"optimiser.learning_rate"`, or by its flat name, `learning_rate` (`FLAT_NAMES`). Settings that are not given have
    their defaults.

    Raises:
        InputError: unknown or wrong settings, or one given twice; the error lists all of them.
    """

    data: DataSettings = DataSettings()
    negatives: NegativeSettings = NegativeSettings()
    losses: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    validation: ValidationSettings = ValidationSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    def __init__(self, /, **settings: Any) -> None:  # for type checkers, which know the sections only
        super().__init__(**settings)

    @model_validator(mode="before")
    @classmethod
    def _in_sections(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return in_sections(settings)

    @model_validator(mode="after")
    def _preferences_fit_beta(self) -> Self:
        objectives, name = len(self.data.beta), "validation.validation_pi"
        try:
            if self.validation.validation_share > 0.0:
                preferences(self.validation.validation_pi, objectives)
            name = "data.trained_pi"
            if self.data.trained_pi is not None:
                preference(self.data.trained_pi, objectives)
        except InputError as error:
            raise InputError(error.what, where=name, found=error.found, hint=error.hint) from error
        return self

    def changed(self, **settings: Any) -> TrainingConfig:
        """A copy with some settings changed, each by any of its names.

        Raises:
            InputError: unknown or wrong settings, or one given twice.
        """
        merged: dict[str, Any] = {name: dict(section) for name, section in self}
        for name, value in in_sections(settings).items():
            merged[name] = {**merged[name], **value} if name in merged and isinstance(value, dict) else value
        return TrainingConfig(**merged)

    def flat(self) -> dict[str, Any]:
        """The settings by their flat names, in the order of `FLAT_NAMES`."""
        return {name: getattr(getattr(self, section), field) for name, (section, field) in FLAT_NAMES.items()}

    def objectives(self, names: Sequence[str]) -> tuple[Objective, ...]:
        """The objectives of a model by their names, with the losses that these settings give them.

        Raises:
            InputError: see `preference.objectives.check_objectives`.
        """
        losses = self.losses
        return objectives_of(names, {"cart": losses.cart_loss, "order": losses.order_loss}, losses.ordered_share)


def in_sections(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by section, from flat names, dotted names and sections; unknown names stay as they are.

    Raises:
        InputError: a setting that is given twice.
    """
    sections = {section for section, _ in FLAT_NAMES.values()}
    found: dict[str, Any] = {}

    def add(section: str, name: str, value: Any) -> None:
        values = found.setdefault(section, {})
        if name in values:
            raise InputError("a setting is given twice", where=f"{section}.{name}", hint="give it once")
        values[name] = value

    for name, value in settings.items():
        section, dot, field = name.partition(".")
        if name in sections and isinstance(value, Mapping | Section):
            for inner, each in dict(value).items():
                add(name, inner, each)
        elif dot and section in sections:
            add(section, field, value)
        elif name in FLAT_NAMES:
            add(*FLAT_NAMES[name], value)
        else:
            found[name] = value
    return found


def training_config(folder: Path | str) -> TrainingConfig:
    """The settings that the model of a folder was trained with, for example to measure its front.

    Raises:
        InputError: not a model folder.
    """
    return TrainingConfig(**ModelDescription.read(folder).training)
