import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core import losses
from multitron_core.errors import InputError
from multitron_core.training.config import TrainingConfig


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_click_loss_is_the_cross_entropy_of_the_target():
    positive, negative = numbers(1, 7), numbers(2, 7, 5)
    logits = torch.cat([positive[:, None], negative], dim=1)
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(7, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(losses.click_loss(positive, negative), expected)


def test_click_loss_without_negatives_is_zero():
    assert losses.click_loss(numbers(1, 3), torch.empty(3, 0)).tolist() == [0.0, 0.0, 0.0]


def test_a_negative_left_out_has_no_gradient():
    positive, negative = numbers(1, 2).requires_grad_(), torch.tensor([[0.5, -torch.inf]] * 2).requires_grad_()
    losses.click_loss(positive, negative).sum().backward()
    assert negative.grad is not None
    assert negative.grad[:, 1].tolist() == [0.0, 0.0]
    assert negative.grad[:, 0].min() > 0


def test_a_negative_with_log_copies_counts_as_its_copies():
    positive, negative = numbers(1, 4), numbers(2, 4, 2)
    copied = torch.cat([negative, negative[:, :1], negative[:, :1]], dim=1)
    counted = negative + torch.tensor([math.log(3), 0.0])
    torch.testing.assert_close(losses.click_loss(positive, counted), losses.click_loss(positive, copied))


def test_order_loss_is_the_binary_cross_entropy():
    logits = torch.tensor([0.0, 2.0, 2.0])
    found = losses.order_loss(logits, torch.tensor([True, True, False]))
    assert found.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(2))])


def test_ordered_softmax_averages_to_the_click_loss_of_ordered_steps():
    click, ordered = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, False, False, True])
    assert losses.ordered_softmax_loss(click, ordered, 0.5).mean().item() == pytest.approx(2.5)


def test_ordered_softmax_leaves_a_share_to_every_step():
    click, ordered = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, False, False, True])
    found = losses.ordered_softmax_loss(click, ordered, 0.5, 0.25)
    assert found.tolist() == pytest.approx([1.0 * 1.25, 2.0 * 0.75, 3.0 * 0.75, 4.0 * 1.25])
    assert found.mean().item() == pytest.approx(0.75 * click.mean().item() + 0.25 * 2.5)  # 2.5: of the ordered steps
    nothing_ordered = losses.ordered_softmax_loss(click, torch.zeros(4), 0.0, 0.25)
    assert nothing_ordered.tolist() == pytest.approx([0.75, 1.5, 2.25, 3.0])


@pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
def test_an_ordered_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="ordered share"):
        losses.ordered_softmax_loss(torch.ones(2), torch.zeros(2), 0.5, share)


def test_ordered_softmax_needs_orders():
    with pytest.raises(InputError, match="order rate"):
        losses.ordered_softmax_loss(torch.ones(2), torch.zeros(2), 0.0)


def test_non_uniformity_of_the_specification():
    # pihat = (.9, .1): the released form gives 0.7711, equation 3 with softmax 0.074.
    elementwise, pi = torch.tensor([[0.9, 0.1]]), torch.tensor([0.5, 0.5])
    assert losses.non_uniformity(elementwise, pi, "released").item() == pytest.approx(0.7711, abs=5e-5)
    assert losses.non_uniformity(elementwise, pi, "paper", "softmax").item() == pytest.approx(0.074, abs=5e-4)
    identity = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert losses.non_uniformity(elementwise, pi, "paper", "identity").item() == pytest.approx(identity)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("g", ["identity", "softmax"])
def test_non_uniformity_vanishes_where_weighted_losses_are_equal(k, g):
    pi = torch.arange(1, k + 1).float() / sum(range(1, k + 1))
    assert losses.non_uniformity(1 / pi[None], pi, g=g).item() == pytest.approx(0.0, abs=1e-6)
    released = losses.non_uniformity(1 / pi[None], pi, form="released")
    assert released.item() == pytest.approx(math.log(k), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=6),
    st.floats(0, 1),
    st.sampled_from([("paper", "identity"), ("paper", "softmax"), ("released", "softmax")]),
)
def test_non_uniformity_is_bounded_and_its_gradient_finite(elementwise, pi_order, kind):
    form, g = kind
    values = torch.tensor(elementwise).requires_grad_()
    found = losses.non_uniformity(values, torch.tensor([1 - pi_order, pi_order]), form, g)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
    if form == "paper" and values.min() > 1e-3:
        assert (found > -1e-5).all()
        assert (found < math.log(2) + 1e-5).all()


def test_non_uniformity_takes_a_pi_a_step():
    elementwise, pi = numbers(1, 6, 2).abs(), torch.rand(6, 2)
    whole = losses.non_uniformity(elementwise, pi)
    single = torch.cat([losses.non_uniformity(elementwise[i : i + 1], pi[i]) for i in range(6)])
    torch.testing.assert_close(whole, single)


@pytest.mark.parametrize(("form", "g"), [("other", "identity"), ("paper", "other")])
def test_non_uniformity_refuses_unknown_names(form, g):
    with pytest.raises(InputError, match="other"):
        losses.non_uniformity(torch.ones(1, 2), torch.ones(2), form, g)


def test_chebyshev_is_near_the_largest_weighted_loss():
    elementwise, pi = torch.tensor([[4.0, 1.0], [1.0, 8.0]]), torch.tensor([0.5, 0.5])
    assert losses.chebyshev(elementwise, pi, smoothness=1e-3).tolist() == pytest.approx([2.0, 4.0], abs=1e-2)


def test_cosine_is_lowest_on_the_ray_of_pi():
    pi = torch.tensor([0.2, 0.8])
    found = losses.cosine(torch.tensor([[1.0, 4.0], [4.0, 1.0]]), pi)
    assert found[0].item() == pytest.approx(-1.0, abs=1e-5)
    assert found[1] > found[0]


def test_the_config_names_what_is_computed():
    elementwise, pi = numbers(3, 4, 2).abs(), torch.tensor([0.3, 0.7])
    released = TrainingConfig(regulariser="released", scalarisation="chebyshev")
    torch.testing.assert_close(
        losses.regulariser(released.losses.regulariser)(elementwise, pi),
        losses.non_uniformity(elementwise, pi, "released"),
    )
    torch.testing.assert_close(
        losses.scalarisation(released.losses.scalarisation)(elementwise, pi), losses.chebyshev(elementwise, pi)
    )
    for g in ("identity", "softmax"):
        paper = losses.regulariser("paper", g)
        torch.testing.assert_close(paper(elementwise, pi), losses.non_uniformity(elementwise, pi, "paper", g))
    cosine = losses.regulariser("cosine")
    torch.testing.assert_close(cosine(elementwise, pi), losses.cosine(elementwise, pi))
    assert losses.regulariser("none")(elementwise, pi).tolist() == [0.0] * 4
    torch.testing.assert_close(
        losses.scalarisation(TrainingConfig().losses.scalarisation)(elementwise, pi), elementwise @ pi
    )
