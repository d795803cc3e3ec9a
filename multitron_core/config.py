"""What a model is and how it is trained, as two frozen dataclasses that travel with the weights as JSON.

The values that are right for a data set stand in `preset`; the defaults here are ours, the paper's are
`preset.official()`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from multitron_core.errors import InputError
from multitron_core.losses import EVENT_LOSSES
from multitron_core.preference import preference, preferences
from multitron_core.regularisers import REGULARISERS


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a MultiTRON (spec: Wilm et al., RecSys 2024, section 3)."""

    items: int  # items of the vocabulary; index 0 is padding and is not counted
    dimension: int = 200
    layers: int = 3
    heads: int = 1
    dropout: float = 0.05
    max_length: int = 50  # clicks that the model reads; older ones are cut
    objectives: tuple[str, ...] = ("click", "order")  # pi has this length, in this order
    positions: Literal["start", "end"] = "start"  # "end" (official) tells a step how many clicks are still to come
    # "added": the embeddings of a session's clicks are also added to its state, as often as each objective wants them
    own_clicks: Literal["attended", "added"] = "attended"
    initialisation: Literal["normal", "xavier"] = "normal"  # "xavier" (official) starts with scores of about 0
    # "unit": item embeddings of norm 1, so that frequent items win by direction and not by length; official "free"
    item_norm: Literal["unit", "free"] = "unit"
    item_scale: float = 0.03  # standard deviation of item embeddings under "normal"
    position_scale: float = 0.3  # standard deviation of position embeddings under "normal"

    def __post_init__(self) -> None:
        _at_least(self, 1, "items", "dimension", "layers", "heads", "max_length")
        if self.dimension % self.heads:
            raise InputError(
                "dimension is no multiple of heads",
                found={"dimension": self.dimension, "heads": self.heads},
                mend="choose heads that divide dimension",
            )
        _within(self, 0.0, 1.0, "dropout")
        _one_of(self, "positions", ("start", "end"))
        _one_of(self, "own_clicks", ("attended", "added"))
        _one_of(self, "initialisation", ("normal", "xavier"))
        _one_of(self, "item_norm", ("unit", "free"))
        if len(self.objectives) < 2 or len(set(self.objectives)) != len(self.objectives):
            raise InputError(
                "objectives must be two or more distinct names", where="ModelConfig.objectives", found=self.objectives
            )


Config = TypeVar("Config")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained. The defaults are ours; where the paper does otherwise, the comment says so."""

    epochs: int = 20
    batch_sessions: int = 256
    learning_rate: float = 1e-3  # official 1e-4, which is still at the start after three epochs
    warmup_steps: int = 0  # steps over which the learning rate rises from 0
    schedule: Literal["constant", "cosine"] = "constant"  # "cosine" falls to 0 at the last step
    optimiser: Literal["adam", "lazy_adam"] = "adam"  # lazy: only item embeddings that the batch touched move
    gradient_clip: float = 0.0  # largest norm of the whole gradient; 0 does not clip
    session_order: Literal["shuffled", "chronological"] = "shuffled"  # official chronological
    seed: int = 1

    beta: tuple[float, ...] = (0.5, 0.5)  # pi ~ Dirichlet(beta), an entry an objective
    pi_per: Literal["session", "batch"] = "session"  # official batch
    # one preference for every session instead of sampled ones: a single-objective model, "0.00" of clicks alone
    trained_pi: str | None = None
    # a name of `losses.EVENT_LOSSES`: "bce" (the paper's) calibrates what is ordered, "ordered_softmax" ranks it,
    # "ranked_bce" is the sum of both
    order_loss: str = "bce"
    cart_loss: str = "bce"  # the same for carts, where they are an objective
    # of the losses that rank: what steps with the event get of its weight; the rest is all's
    ordered_share: float = 0.5
    scalarisation: Literal["linear", "chebyshev"] = "linear"
    regulariser: str = "paper"  # a name of `regularisers.REGULARISERS`; official "released", another divergence
    regularisation: float = 0.2  # lambda of equation 4
    regulariser_g: Literal["identity", "softmax"] = "identity"  # g of equation 3, of "paper"

    uniform_negatives: int = 16_384  # shared by the batch
    in_batch_negatives: int = 32  # a session, from the other sessions of the batch
    kept_negatives: int = 100  # the highest logits among them; only these reach the loss
    # Share of log(how often a negative is drawn, see `negatives.log_draw_rates`) that its logit is lowered by in
    # training; 0 as the paper, which corrects nothing
    popularity_correction: float = 0.0
    collisions: Literal["masked", "official"] = "masked"  # official: the target may be among its own negatives

    validation_share: float = 0.02  # of the training sessions, the most recent ones; 0 trains on all
    validation_pi: tuple[str, ...] = ("0.00", "0.50", "1.00")
    keep: Literal["best", "last"] = "best"  # which epoch's weights are written, by the validation loss
    patience: int = 0  # epochs without a better validation loss before training stops; 0 never stops early

    checkpoint_steps: int = 500
    loss_limit: float = 1_000.0  # a batch loss above this counts as exploded
    # CPU threads, 0 for torch's own number. Part of the config, since another number gives other last bits. A small
    # model is faster with one, and many times so where other processes keep the cores busy.
    threads: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast on CUDA that has it
    # On CUDA: the kernels of a step are recorded, once for each size of batch, and from then on launched at once
    cuda_graphs: bool = True
    # Of finding the kept negatives, not of their loss. auto: bfloat16 where the device multiplies it faster
    negative_search: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_sessions", "kept_negatives", "checkpoint_steps")
        _at_least(self, 0, "warmup_steps", "seed", "uniform_negatives", "in_batch_negatives", "patience", "threads")
        _at_least(self, 0.0, "gradient_clip", "regularisation", "loss_limit")
        if not 0.0 < self.learning_rate < float("inf"):
            _refuse(self, "learning_rate", "use a positive number, for example 1e-3")
        if not 0.0 <= self.validation_share < 1.0:
            _refuse(self, "validation_share", "use a share of at least 0 and less than 1")
        if len(self.beta) < 2 or not all(0.0 < value < float("inf") for value in self.beta):
            _refuse(self, "beta", "use a positive number for each objective, for example (0.5, 0.5)")
        if self.validation_share > 0.0:
            preferences(self.validation_pi, len(self.beta))
        if self.trained_pi is not None:
            preference(self.trained_pi, len(self.beta))
        _within(self, 0.0, 1.0, "popularity_correction")
        if not 0.0 < self.ordered_share <= 1.0:
            _refuse(self, "ordered_share", "use a share above 0 and at most 1")
        _one_of(self, "schedule", ("constant", "cosine"))
        _one_of(self, "optimiser", ("adam", "lazy_adam"))
        _one_of(self, "session_order", ("shuffled", "chronological"))
        _one_of(self, "pi_per", ("session", "batch"))
        _one_of(self, "order_loss", EVENT_LOSSES)
        _one_of(self, "cart_loss", EVENT_LOSSES)
        _one_of(self, "scalarisation", ("linear", "chebyshev"))
        _one_of(self, "regulariser", REGULARISERS)
        _one_of(self, "regulariser_g", ("identity", "softmax"))
        _one_of(self, "collisions", ("masked", "official"))
        _one_of(self, "keep", ("best", "last"))
        _one_of(self, "precision", ("auto", "float32", "bfloat16"))
        _one_of(self, "negative_search", ("auto", "float32", "bfloat16"))


def to_json(config: Any) -> str:
    """A config as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """A config of `kind` from what JSON gives back: lists become tuples.

    Raises:
        InputError: a setting that `kind` does not have, or a value that is of another kind than its setting.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            "unknown settings", where=kind.__name__, found=unknown, mend=f"the settings are {sorted(known)}"
        )
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    kinds = get_type_hints(kind)
    for name, value in given.items():
        if get_origin(kinds[name]) is not Literal:  # the config itself refuses those, and says which there are
            _of_kind(f"{kind.__name__}.{name}", kinds[name], value)
    return kind(**given)


def _of_kind(where: str, kind: Any, value: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        said = "; ".join(problem["msg"] for problem in error.errors())
        raise InputError("a setting has a value of the wrong kind", where=where, found=value, mend=said) from error


def _refuse(config: Any, name: str, mend: str) -> None:
    where = f"{type(config).__name__}.{name}"
    raise InputError("a setting is out of range", where=where, found=getattr(config, name), mend=mend)


def _at_least(config: Any, low: float, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= low:
            _refuse(config, name, f"use {low} or more")


def _within(config: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        if not low <= getattr(config, name) <= high:
            _refuse(config, name, f"use a value between {low} and {high}")


def _one_of(config: Any, name: str, values: Iterable[str]) -> None:
    if getattr(config, name) not in tuple(values):  # a value from a file may be a list
        _refuse(config, name, f"use one of {', '.join(values)}")
