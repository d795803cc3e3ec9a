"""Objectives: what a model trades off, a list of (name, event, loss).

The first is always the next click. Each further one is an event that may follow a click on the same item in the same
session: a cart, an order. A preference pi, the beta that draws it, the losses, a front and its hypervolume all have an
entry an objective, in this order. Two, clicks and orders, are the default and what the paper has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multitron_core.errors import InputError

LABELS = {"cart": "carted", "order": "ordered"}
"""The events that clicks are labelled with, and the name of each label."""


@dataclass(frozen=True)
class Objective:
    """One thing to be good at.

    Args:
        name: of the objective, as in `ModelConfig.objectives` and in the columns of a front.
        event: "click", or the event whose labels the loss reads.
        loss: a name of `losses.OBJECTIVE_LOSSES`.
        share: of the losses of events that rank, what the steps with the event get of its weight.
    """

    name: str
    event: str
    loss: str
    share: float = 1.0


def check_objectives(names: Sequence[str]) -> None:
    """Refuse names that are no objectives.

    Raises:
        InputError: a name that is no event, or the first is not "click".
    """
    if not names or names[0] != "click" or not set(names[1:]) <= set(LABELS):
        raise InputError(
            "unknown objectives",
            where="objectives",
            found=tuple(names),
            hint=f"name 'click' first, then events out of {', '.join(LABELS)}",
        )


def objectives_of(names: Sequence[str], losses: Mapping[str, str], share: float = 1.0) -> tuple[Objective, ...]:
    """The objectives of a model.

    Args:
        names: "click" first, then events out of `LABELS`.
        losses: the name of each event's loss, for example {"order": "bce"}.
        share: see `Objective.share`.

    Raises:
        InputError: see `check_objectives`.
    """
    check_objectives(names)
    return (Objective("click", "click", "softmax"), *(Objective(name, name, losses[name], share) for name in names[1:]))


def labels_of(names: Sequence[str], labels: Mapping[str, np.ndarray], steps: int) -> np.ndarray:
    """Which steps have each objective's event, bool [steps, objectives]; every step has its click.

    Raises:
        InputError: the sessions do not have the labels of an objective.
    """
    columns = []
    for name in names:
        if name != "click" and name not in labels:
            raise InputError(
                f"the sessions have no labels of {name}s",
                where=f"objective {name}",
                found=sorted(labels),
                hint=f"prepare the sessions with objectives={tuple(names)}, from a log that has {name}s",
            )
        columns.append(np.ones(steps, dtype=bool) if name == "click" else labels[name])
    return np.stack(columns, axis=1)
