"""The shape of a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from multitron_core.errors import InputError
from multitron_core.utils.settings import Config, Positive


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2 or len(set(names)) != len(names):
        raise InputError(
            "objectives must be two or more distinct names", found=names, hint="for example ['click', 'order']"
        )
    return names


class ModelConfig(Config):
    """The shape of a MultiTRON (Wilm et al., RecSys 2024, section 3).

    Raises:
        InputError: unknown or wrong settings; the error lists all of them.
    """

    items: Positive  # number of items in the vocabulary; index 0 is padding and is not counted
    dimension: Positive = 200
    layers: Positive = 3
    heads: Positive = 1
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_length: Positive = 50  # number of clicks that the model reads; older clicks are cut
    # pi has one weight per objective, in this order
    objectives: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_distinct)] = ("click", "order")
    positions: Literal["start", "end"] = "start"  # "end" (official) leaks to each step how many clicks follow
    # "added": the embeddings of a session's clicks are added to its state, with one weight per objective
    own_clicks: Literal["attended", "added"] = "attended"
    initialisation: Literal["normal", "xavier"] = "normal"  # "xavier" (official) starts with scores of about 0
    # "unit": item embeddings of norm 1, so that frequent items win by direction and not by length; official "free"
    item_norm: Literal["unit", "free"] = "unit"
    item_scale: float = 0.03  # standard deviation of item embeddings under "normal"
    position_scale: float = 0.3  # standard deviation of position embeddings under "normal"

    @model_validator(mode="after")
    def _heads_divide_dimension(self) -> Self:
        if self.dimension % self.heads:
            raise InputError(
                "dimension is not a multiple of heads",
                found={"dimension": self.dimension, "heads": self.heads},
                hint="choose heads that divide dimension",
            )
        return self

    def changed(self, **settings: Any) -> ModelConfig:
        """A copy with some settings changed.

        Raises:
            InputError: unknown or wrong settings.
        """
        return ModelConfig(**{**dict(self), **settings})
