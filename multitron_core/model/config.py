"""The shape of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multitron_core.errors import InputError
from multitron_core.utils.settings import _at_least, _one_of, _within


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
                hint="choose heads that divide dimension",
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
