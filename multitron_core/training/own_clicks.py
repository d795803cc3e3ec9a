"""How often a session's own clicks are added to its state, fitted on sessions that training has not seen.

python -m multitron_core.own_clicks --sessions PREPARED      # how often visitors come back to what they clicked
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch

from multitron_core.errors import MultitronError
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.validation import HeldOut

TRIED = tuple(0.25 * number for number in range(17))  # 0 to 4
AT_MOST = 16_384
"""So many held-out sessions are asked, the most recent ones: one number an objective needs no more."""


@torch.no_grad()
def fit_own_clicks(model: MultiTRON, held_out: HeldOut) -> None:
    """Set `model.own_clicks`, each objective's number where the click loss of its own steps is lowest when it has all
    the weight. The click loss says how these targets rank, whatever trained the objective.

    Training cannot find them: it comes to know the few steps with an order by heart, and needs no rule for them. On
    sessions that it has not seen, what was clicked before is far more often ordered than clicked again. One number an
    objective is little enough for the few orders of held-out sessions. An objective whose event no held-out step has
    keeps its trained number.

    Args:
        model: on its device, with item embeddings of the norm that its config asks for.
        held_out: the sessions.
    """
    assert model.own_clicks is not None, "a model of config.own_clicks 'added'"
    fitted = model.own_clicks.clone()
    for place in range(len(fitted)):
        losses = losses_of_numbers(model, held_out, place)
        if losses.shape[1]:
            fitted[place] = TRIED[int(losses.mean(axis=1).argmin())]
    model.own_clicks.copy_(fitted)


@torch.no_grad()
def losses_of_numbers(model: MultiTRON, held_out: HeldOut, place: int) -> np.ndarray:
    """The click loss of an objective's own steps when it has all the weight, by how often own clicks are added.

    Args:
        model: as for `fit_own_clicks`; its numbers are what they were afterwards.
        held_out: the sessions; the last `AT_MOST` are asked.
        place: of the objective.

    Returns:
        float64 [numbers tried, steps with the objective's event], in nats; no column where no step has it.
    """
    assert model.own_clicks is not None, "a model of config.own_clicks 'added'"
    model.eval()
    asked = replace(
        held_out,
        rows=held_out.rows[-AT_MOST:],
        config=replace(held_out.config, order_loss="ordered_softmax", cart_loss="ordered_softmax", ordered_share=1.0),
        rates=[1.0] * len(held_out.rates),  # what scales the loss of all steps alike
    )
    before = model.own_clicks.clone()
    parts = []
    for work in asked.works(model, np.eye(len(before), dtype=np.float32)[place]):
        own = work.labels[:, place]
        of_numbers = []
        for tried in TRIED:
            model.own_clicks[place] = tried
            of_numbers.append(asked.losses(model, work)[own, place].double())
        parts.append(torch.stack(of_numbers).cpu().numpy())
    model.own_clicks.copy_(before)
    return np.concatenate(parts, axis=1)


def returning_shares(sessions: EncodedSessions) -> dict[str, float]:
    """Of the targets (every click but a session's first), the share that its session had clicked before.

    Returns:
        "click" for all targets, and the name of each label ("order", "cart") for those that have it; NaN of none.
    """
    session = np.repeat(np.arange(len(sessions)), np.diff(sessions.offsets))
    _, first = np.unique(session * (int(sessions.items.max(initial=0)) + 1) + sessions.items, return_index=True)
    returning = np.ones(len(sessions.items), dtype=bool)
    returning[first] = False
    target = np.ones(len(sessions.items), dtype=bool)
    target[sessions.offsets[:-1]] = False
    of = {"click": target, **{name: target & label for name, label in sessions.labels.items()}}
    return {name: float(returning[chosen].mean()) if chosen.any() else float("nan") for name, chosen in of.items()}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", required=True, help="folder of prepared sessions")
    try:
        prepared = PreparedSessions.load(parser.parse_args().sessions)
    except MultitronError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("targets that their session had clicked before, of all clicks and of those with a later event:")
    for name, part in (("train", prepared.train), ("test", prepared.test)):
        shares = ", ".join(f"{event} {share:.3f}" for event, share in returning_shares(part).items())
        print(f"  {name:5} {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
