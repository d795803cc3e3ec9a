"""What a model is and how it is trained, as two frozen dataclasses that travel with the weights as JSON.

The values that are right for a data set stand in `preset`; the defaults here are ours, the paper's are
`preset.official()`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from multitron_core.errors import InputError


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
    initialisation: Literal["normal", "xavier"] = "normal"  # "xavier" (official) starts with scores of about 0
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
        _one_of(self, "initialisation", ("normal", "xavier"))
        if len(self.objectives) < 2 or len(set(self.objectives)) != len(self.objectives):
            raise InputError(
                "objectives must be two or more distinct names", where="ModelConfig.objectives", found=self.objectives
            )


Config = TypeVar("Config")


def to_json(config: Any) -> str:
    """A config as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """A config of `kind` from what JSON gives back: lists become tuples.

    Raises:
        InputError: a setting that `kind` does not have.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            "unknown settings", where=kind.__name__, found=unknown, mend=f"the settings are {sorted(known)}"
        )
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


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


def _one_of(config: Any, name: str, values: tuple[str, ...]) -> None:
    if getattr(config, name) not in values:
        _refuse(config, name, f"use one of {', '.join(values)}")
