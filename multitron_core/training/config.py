"""What a model is and how it is trained, as two frozen dataclasses that travel with the weights as JSON.

The values that are right for a data set stand in `preset`; the defaults here are ours, the paper's are
`preset.official()`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multitron_core.errors import InputError
from multitron_core.losses.objective_losses import EVENT_LOSSES
from multitron_core.losses.regularisers import REGULARISERS
from multitron_core.losses.scalarisation import SCALARISATIONS
from multitron_core.preference.keys import preference, preferences
from multitron_core.preference.objectives import Objective, objectives_of
from multitron_core.utils.settings import _at_least, _one_of, _refuse, _within, from_dict


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
        _one_of(self, "scalarisation", SCALARISATIONS)
        _one_of(self, "regulariser", REGULARISERS)
        _one_of(self, "regulariser_g", ("identity", "softmax"))
        _one_of(self, "collisions", ("masked", "official"))
        _one_of(self, "keep", ("best", "last"))
        _one_of(self, "precision", ("auto", "float32", "bfloat16"))
        _one_of(self, "negative_search", ("auto", "float32", "bfloat16"))

    def objectives(self, names: Sequence[str]) -> tuple[Objective, ...]:
        """The objectives of a model by their names, with the losses that these settings give them.

        Raises:
            InputError: see `preference.objectives.check_objectives`.
        """
        return objectives_of(names, {"cart": self.cart_loss, "order": self.order_loss}, self.ordered_share)


def training_config(folder: Path | str) -> TrainingConfig:
    """How the model of a folder was trained, for example what its front is measured with.

    Raises:
        InputError: not a model folder.
    """
    path = Path(folder) / "config.json"
    try:
        return from_dict(TrainingConfig, json.loads(path.read_text())["training"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "not a model folder", where=path, found=str(error), hint="name the folder that training wrote"
        ) from error
