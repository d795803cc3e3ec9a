"""The official code itself beside ours, where MULTITRON_OFFICIAL names a checkout of otto-de/MultiTRON.

It needs pytorch_lightning in the Python that runs the tests. test_official.py holds the same without it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from multitron_core.losses.negatives import draw_negatives
from multitron_core.losses.regularisers import non_uniformity
from multitron_core.losses.scalarisation import linear
from multitron_core.model.folder import load_model
from multitron_core.official import import_checkpoint
from multitron_core.training import presets
from multitron_core.training.step import StepLosses, losses_of, table_rows
from multitron_core.training.step_inputs import step_inputs
from tests.multitron_core.training.test_step import random_batch

ITEMS, D, LENGTH = 300, 16, 20


@pytest.fixture(scope="module")
def official() -> ModuleType:
    checkout = os.environ.get("MULTITRON_OFFICIAL")
    if not checkout:
        pytest.skip("MULTITRON_OFFICIAL does not name a checkout of the official code")
    sys.path.insert(0, checkout)
    pytest.importorskip("pytorch_lightning")
    return pytest.importorskip("src.model")


@pytest.mark.parametrize("pi_order", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sessions", [2, 9])
def test_import_checkpoint_gives_their_states_scores_and_losses(
    official: ModuleType, tmp_path: Path, pi_order: float, sessions: int
) -> None:
    torch.manual_seed(1)
    theirs = official.MultiTron(D, 0.05, LENGTH, ITEMS, sessions, "batchwise", True, 20, num_layers=3).eval()
    with torch.no_grad():  # Xavier scores are about 0: any error would be too
        theirs.item_embedding.weight.mul_(3.0)
    torch.save({"state_dict": theirs.state_dict(), "hyper_parameters": dict(theirs.hparams)}, tmp_path / "last.ckpt")
    folder = import_checkpoint(tmp_path / "last.ckpt", tmp_path / "model")
    ours, recipe = load_model(folder), presets.official().training

    batch = random_batch(3, sessions)
    negatives = draw_negatives(batch, ITEMS, 400, 1, np.random.default_rng(2))  # of two sessions, one may have one step
    shape = (sessions, LENGTH)
    real = np.arange(LENGTH)[None, :] >= LENGTH - batch.lengths[:, None]  # padded on the left

    def padded(values: np.ndarray) -> torch.Tensor:
        table = np.zeros(shape, dtype=np.int64)
        table[real] = values
        return torch.from_numpy(table)

    mask = torch.from_numpy(real).float()
    beta = torch.tensor([[1.0 - pi_order, pi_order]])
    with torch.no_grad():
        their_states = theirs(padded(batch.inputs), beta, mask)
        loss_of = sys.modules["src.loss"]
        found = loss_of.calc_loss(
            loss_of.click_ssm_order_be_loss,
            their_states,
            padded(batch.targets),
            padded(batch.ordered).float(),
            torch.from_numpy(np.repeat(negatives.uniform_items, negatives.uniform_copies)),
            torch.from_numpy(np.stack([np.repeat(negatives.batch_items, row) for row in negatives.batch_copies])),
            mask,
            theirs.output_embedding,
            "batchwise",
            theirs.final_activation,
            True,
            recipe.negatives.kept_negatives,
        )
        their_penalty = loss_of.approx_epo_loss(found[1], found[3], mask, beta)
        their_total = loss_of.weighted_loss(found[0], found[2], beta) + 0.2 * their_penalty

        inputs = step_inputs(batch, negatives, beta[0].numpy(), ours.config, overhead=10)
        losses = losses_of(
            ours,
            *table_rows(ours, inputs),
            inputs,
            StepLosses.of(recipe, ours.config.objectives, (1.0, 0.3), torch.float32),
        )
        penalty = non_uniformity(losses, beta[0], form="released")
        total = (linear(losses, beta[0]) + 0.2 * penalty).mean()
        our_states = torch.cat(
            [
                ours(torch.from_numpy(batch.inputs[first : first + n])[None], torch.tensor([n]), beta[0])[0]
                for first, n in zip(batch.starts, batch.lengths, strict=True)
            ]
        )

    inside = torch.from_numpy(real)
    torch.testing.assert_close(our_states, their_states[inside], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(
        ours.scores(our_states), their_states[inside] @ theirs.output_embedding.weight[1:].T, atol=1e-4, rtol=1e-5
    )
    torch.testing.assert_close(losses[:, 0], found[1][inside], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses[:, 1], found[3].reshape(inside.shape)[inside], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(penalty.mean(), their_penalty, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total, their_total, atol=1e-5, rtol=1e-5)
