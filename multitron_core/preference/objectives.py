"""Objectives between which a model trades off, each with a name, an event and a loss.

The first objective is always the next click. Each further objective is an event that may follow a click on the same
item in the same session, for example a cart or an order. Preferences, the Beta distribution that they are drawn from,
losses, fronts and hypervolumes have one entry per objective, in this order. The default is the paper's pair, clicks and
orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multitron_core.errors import InputError

LABELS = {"cart": "carted", "order": "ordered"}
"""Name of the label of each event that clicks are labelled with."""


@dataclass(frozen=True)
class Objective:
    """One objective of a model.

    Args:
        name: Name of the objective, as in `ModelConfig.objectives` and in the columns of a front.
        event: "click", or the event whose labels the loss uses.
        loss: A name of `losses.OBJECTIVE_LOSSES`.
        share: For ranking losses of events, the share of the objective's weight that steps with the event receive.
    """

    name: str
    event: str
    loss: str
    share: float = 1.0


def check_objectives(names: Sequence[str]) -> None:
    """Check the names of objectives.

    Raises:
        InputError: The first name is not "click", or another one is not an event of `LABELS`.
    """
    if not names or names[0] != "click" or not set(names[1:]) <= set(LABELS):
        raise InputError(
            "unknown objectives",
            where="objectives",
            found=tuple(names),
            hint=f"start with 'click', followed by events out of {', '.join(LABELS)}",
        )


def objectives_of(names: Sequence[str], losses: Mapping[str, str], share: float = 1.0) -> tuple[Objective, ...]:
    """Create the objectives of a model.

    Args:
        names: "click" first, then events out of `LABELS`.
        losses: Name of each event's loss, for example {"order": "bce"}.
        share: See `Objective.share`.

    Raises:
        InputError: See `check_objectives`.
    """
    check_objectives(names)
    return (Objective("click", "click", "softmax"), *(Objective(name, name, losses[name], share) for name in names[1:]))


def labels_of(names: Sequence[str], labels: Mapping[str, np.ndarray], steps: int) -> np.ndarray:
    """Mark which steps have the event of each objective.

    Args:
        names: Names of the objectives; every step has the event "click".
        labels: bool [steps] for each event in the data.
        steps: Number of steps.

    Returns:
        bool [steps, objectives].

    Raises:
        InputError: The sessions lack the labels of an objective.
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
