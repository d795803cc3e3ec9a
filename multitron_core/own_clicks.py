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

TRIED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
AT_MOST = 16_384
"""So many held-out sessions are asked, the most recent ones: one number an objective needs no more."""


@torch.no_grad()
def fit_own_clicks(model: MultiTRON, held_out: HeldOut) -> None:
    """Set `model.own_clicks`, each objective's number by the click loss of its own steps where it has all the weight:
    the smallest one that `smallest_within_error` finds as good as the best. The click loss says how these targets rank,
    whatever trained the objective.

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
        losses: list[list[torch.Tensor]] = [[] for _ in TRIED]
        events = 0
        for work in asked.works(model, pi):
            events += int(work.labels[:, place].sum())
            for tried, of_tried in zip(TRIED, losses, strict=True):
                model.own_clicks[place] = tried
                of_tried.append(asked.losses(model, work)[:, place])
        if events:
            table = torch.stack([torch.cat(of_tried) for of_tried in losses])  # (settings, steps)
            fitted[place] = TRIED[smallest_within_error(table.double().cpu().numpy())]
    model.own_clicks.copy_(fitted)


def smallest_within_error(losses: np.ndarray) -> int:
    """The first of several settings that is not worse than the best by more than one standard error.

    The rule of one standard error (Breiman et al., "Classification and Regression Trees", 1984): where few steps
    decide, the losses of many settings are as good as equal, and the most cautious of these is taken.

    Args:
        losses: float [settings, steps], the most cautious setting first.
    """
    worse = losses - losses[losses.mean(axis=1).argmin()]  # of the same steps: what a step costs anyway cancels
    error = worse.std(axis=1) / np.sqrt(losses.shape[1])
    return int(np.argmax(worse.mean(axis=1) <= error))


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
