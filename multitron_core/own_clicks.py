"""How often a session's own clicks are added to its state, fitted on sessions that training has not seen.

python -m multitron_core.own_clicks --sessions PREPARED      # how often visitors come back to what they clicked
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch

from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import MultitronError
from multitron_core.model import MultiTRON
from multitron_core.sessions import PreparedSessions
from multitron_core.validation import HeldOut

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
    model.eval()
    asked = replace(
        held_out,
        rows=held_out.rows[-AT_MOST:],
        config=replace(held_out.config, order_loss="ordered_softmax", cart_loss="ordered_softmax", ordered_share=1.0),
        rates=[max(rate, 1e-9) for rate in held_out.rates],
    )
    fitted = model.own_clicks.clone()
    for place, pi in enumerate(np.eye(len(fitted), dtype=np.float32)):
        losses = np.zeros(len(TRIED))
        events = 0
        for work in asked.works(model, pi):
            events += int(work.labels[:, place].sum())
            for index, tried in enumerate(TRIED):
                model.own_clicks[place] = tried
                losses[index] += float(asked.losses(model, work)[:, place].sum())
        if events:
            fitted[place] = TRIED[int(losses.argmin())]
    model.own_clicks.copy_(fitted)


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
