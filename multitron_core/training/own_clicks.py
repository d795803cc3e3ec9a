"""Weights of a session's own clicks, fitted on sessions that training has not read.

python -m multitron_core.own_clicks --sessions PREPARED      # share of targets that the session had clicked before
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch

from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training.step import click_losses, table_rows
from multitron_core.training.validation import HeldOut
from multitron_core.utils.command_line import command

CANDIDATES = tuple(0.25 * number for number in range(17))
"""Weights that the fit tries, 0 to 4."""

MAX_SESSIONS = 16_384
"""Largest number of held-out sessions for the fit, the most recent ones: one number per objective needs no more."""


@torch.no_grad()
def fit_own_clicks(model: MultiTRON, held_out: HeldOut) -> None:
    """Set `model.own_clicks`: for each objective, the weight with the lowest click loss of the steps with its event.

    That click loss is taken at the preference that gives the objective all the weight. It measures how these targets
    rank, whatever loss trained the objective.

    Training cannot fit the weights: it overfits the few ordered steps and needs no rule for them. In held-out sessions,
    items that the session clicked before are ordered far more often than clicked again. One number per objective is
    little enough for the few orders of held-out sessions. An objective without such a step keeps its trained weight.

    Args:
        model: on its device, with item embeddings of the norm that its config sets.
        held_out: the sessions.
    """
    assert model.own_clicks is not None, "a model of config.own_clicks 'added'"
    fitted = model.own_clicks.clone()
    for place in range(len(fitted)):
        losses = losses_by_weight(model, held_out, place)
        if losses.shape[1]:
            fitted[place] = CANDIDATES[int(losses.mean(axis=1).argmin())]
    model.own_clicks.copy_(fitted)


@torch.no_grad()
def losses_by_weight(model: MultiTRON, held_out: HeldOut, place: int) -> np.ndarray:
    """The click losses of the steps with an objective's event, for each candidate weight of that objective.

    Args:
        model: as for `fit_own_clicks`; `own_clicks` is unchanged afterwards.
        held_out: the sessions; the last `MAX_SESSIONS` are used.
        place: number of the objective.

    Returns:
        float64 [candidates, steps with the event], in nats; no column where no step has it.
    """
    assert model.own_clicks is not None, "a model of config.own_clicks 'added'"
    model.eval()
    recent = replace(held_out, rows=held_out.rows[-MAX_SESSIONS:])
    before = model.own_clicks.clone()
    parts = []
    for inputs in recent.batches(model, np.eye(len(before), dtype=np.float32)[place]):
        has_event = inputs.labels[:, place]
        of_candidates = []
        for candidate in CANDIDATES:
            model.own_clicks[place] = candidate
            losses, _ = click_losses(model, *table_rows(model, inputs), inputs, held_out.losses)
            of_candidates.append(losses[has_event].double())
        parts.append(torch.stack(of_candidates).cpu().numpy())
    model.own_clicks.copy_(before)
    return np.concatenate(parts, axis=1)


def returning_shares(sessions: EncodedSessions) -> dict[str, float]:
    """Of the targets (every click but a session's first), the share that its session had clicked before.

    Returns:
        "click" for all targets, and the name of each label ("order", "cart") for targets with that label; NaN if there
        are none.
    """
    session = np.repeat(np.arange(len(sessions)), np.diff(sessions.offsets))
    _, first = np.unique(session * (int(sessions.items.max(initial=0)) + 1) + sessions.items, return_index=True)
    returning = np.ones(len(sessions.items), dtype=bool)
    returning[first] = False
    target = np.ones(len(sessions.items), dtype=bool)
    target[sessions.offsets[:-1]] = False
    of = {"click": target, **{name: target & label for name, label in sessions.labels.items()}}
    return {name: float(returning[chosen].mean()) if chosen.any() else float("nan") for name, chosen in of.items()}


@command
def main(arguments: list[str] | None = None) -> int:
    """The command `python -m multitron_core.own_clicks`: print the share of returning targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", required=True, help="folder of prepared sessions")
    prepared = PreparedSessions.load(parser.parse_args(arguments).sessions)
    print("targets that their session had clicked before, of all clicks and of those with a later event:")
    for name, part in (("train", prepared.train), ("test", prepared.test)):
        shares = ", ".join(f"{event} {share:.3f}" for event, share in returning_shares(part).items())
        print(f"  {name:5} {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
