from __future__ import annotations

import math

import pytest
import torch

from multitron_core import losses
from multitron_core.errors import InputError
from multitron_core.losses.objective_losses import EVENT_LOSSES, OBJECTIVE_LOSSES, losses_by_objective
from multitron_core.preference.objectives import Objective


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_click_loss_is_the_cross_entropy() -> None:
    positive, negative = numbers(1, 7), numbers(2, 7, 5)
    logits = torch.cat([positive[:, None], negative], dim=1)
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(7, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(losses.click_loss(positive, negative), expected)


def test_click_loss_without_negatives_is_zero() -> None:
    assert losses.click_loss(numbers(1, 3), torch.empty(3, 0)).tolist() == [0.0, 0.0, 0.0]


def test_click_loss_of_an_excluded_negative_has_no_gradient() -> None:
    positive, negative = numbers(1, 2).requires_grad_(), torch.tensor([[0.5, -torch.inf]] * 2).requires_grad_()
    losses.click_loss(positive, negative).sum().backward()
    assert negative.grad is not None
    assert negative.grad[:, 1].tolist() == [0.0, 0.0]
    assert negative.grad[:, 0].min() > 0


def test_click_loss_counts_log_copies_as_copies() -> None:
    positive, negative = numbers(1, 4), numbers(2, 4, 2)
    copied = torch.cat([negative, negative[:, :1], negative[:, :1]], dim=1)
    counted = negative + torch.tensor([math.log(3), 0.0])
    torch.testing.assert_close(losses.click_loss(positive, counted), losses.click_loss(positive, copied))


def test_order_loss_is_the_binary_cross_entropy() -> None:
    logits = torch.tensor([0.0, 2.0, 2.0])
    found = losses.order_loss(logits, torch.tensor([True, True, False]))
    assert found.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(2))])


def test_ordered_softmax_loss_averages_over_ordered_steps() -> None:
    click, ordered = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, False, False, True])
    assert losses.ordered_softmax_loss(click, ordered, 0.5).mean().item() == pytest.approx(2.5)


def test_ordered_softmax_loss_leaves_a_share_to_all_steps() -> None:
    click, ordered = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, False, False, True])
    found = losses.ordered_softmax_loss(click, ordered, 0.5, 0.25)
    assert found.tolist() == pytest.approx([1.0 * 1.25, 2.0 * 0.75, 3.0 * 0.75, 4.0 * 1.25])
    assert found.mean().item() == pytest.approx(0.75 * click.mean().item() + 0.25 * 2.5)  # 2.5: of the ordered steps
    nothing_ordered = losses.ordered_softmax_loss(click, torch.zeros(4), 0.0, 0.25)
    assert nothing_ordered.tolist() == pytest.approx([0.75, 1.5, 2.25, 3.0])


@pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
def test_ordered_softmax_loss_refuses_a_share_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="ordered share"):
        losses.ordered_softmax_loss(torch.ones(2), torch.zeros(2), 0.5, share)


def test_ordered_softmax_loss_needs_orders() -> None:
    with pytest.raises(InputError, match="order rate"):
        losses.ordered_softmax_loss(torch.ones(2), torch.zeros(2), 0.0)


def test_losses_by_objective_has_one_column_per_objective() -> None:
    click, logits = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5])
    labels = torch.tensor([[True, False, True], [True, True, False]])
    objectives = [
        Objective("click", "click", "softmax"),
        Objective("cart", "cart", "bce"),
        Objective("order", "order", "ranked_bce", 0.25),
    ]
    found = losses_by_objective(objectives, click, logits, labels, [1.0, 0.5, 0.5])
    order = losses.ordered_softmax_loss(click, labels[:, 2], 0.5, 0.25) + losses.order_loss(logits, labels[:, 2])
    expected = torch.stack([click, losses.order_loss(logits, labels[:, 1]), order], dim=1)
    assert torch.equal(found, expected)


def test_objective_losses_of_a_model_that_guesses() -> None:
    """A model that gives all 101 candidates and both labels the same probability, against its mean losses."""
    click, logits, happened = torch.full((8,), math.log(101)), torch.zeros(8), torch.arange(8) % 4 == 0
    for name, loss in OBJECTIVE_LOSSES.items():
        found = loss.of_steps(click, logits, happened, 0.25, 0.5).mean().item()
        assert found == pytest.approx(loss.uninformed_loss(math.log(101)), rel=1e-6), name
    assert {name for name, loss in EVENT_LOSSES.items() if not loss.ranks} == {"bce"}
