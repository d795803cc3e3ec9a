"""Losses, scalarisations and regularisers against numbers worked out by hand, and against the plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from multitron_core import losses
from multitron_core.losses import regularisers
from tests.multitron_core import plain_formulas as plain

LN2, LN3, LN5 = math.log(2.0), math.log(3.0), math.log(5.0)
TWO_LOSSES = [(3.0, 1.0), (0.25, 4.0), (7.5, 1e-3), (1e-3, 0.7), (2.0, 2.0)]
PREFERENCES = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.94, 0.06), (0.2, 0.8)]


def tensor(*values: float | tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestClicks:
    def test_by_hand(self) -> None:
        # The target has weight 2 beside 3 and 5: its share is 2 / 10.
        assert losses.click_loss(tensor(LN2), tensor((LN3, LN5))).item() == pytest.approx(LN5)
        # One negative of the same logit: a half.
        assert losses.click_loss(tensor(0.7), tensor((0.7,))).item() == pytest.approx(LN2)
        # A hundred of them: 1 / 101, what a model that knows nothing has.
        assert losses.click_loss(tensor(0.0), torch.zeros(1, 100)).item() == pytest.approx(math.log(101), rel=1e-6)

    @pytest.mark.parametrize(
        ("own", "others", "expected"), [(300.0, 0.0, 0.0), (-300.0, 0.0, 300.0), (0.0, 300.0, 300.0)]
    )
    def test_logits_that_the_plain_formula_cannot_take(self, own: float, others: float, expected: float) -> None:
        assert losses.click_loss(torch.tensor([own]), torch.tensor([[others]])).item() == pytest.approx(
            expected, abs=1e-6
        )


class TestOrders:
    def test_by_hand(self) -> None:
        # A logit of ln 3 is a probability of 3 / 4.
        found = losses.order_loss(tensor(LN3, LN3, 0.0, 0.0), torch.tensor([True, False, True, False]))
        assert found.tolist() == pytest.approx([math.log(4 / 3), math.log(4), LN2, LN2])

    def test_no_orders_and_every_click_ordered(self) -> None:
        logits = torch.tensor([-1.5, 0.0, 2.0])
        none, every = losses.order_loss(logits, torch.zeros(3)), losses.order_loss(logits, torch.ones(3))
        assert none.tolist() == pytest.approx([math.log(1 + math.exp(value)) for value in logits.tolist()])
        assert every.tolist() == pytest.approx([math.log(1 + math.exp(-value)) for value in logits.tolist()])

    def test_logits_that_the_plain_formula_cannot_take(self) -> None:
        found = losses.order_loss(torch.tensor([300.0, 300.0, -300.0]), torch.tensor([True, False, True]))
        assert found.tolist() == pytest.approx([0.0, 300.0, 300.0], abs=1e-6)

    def test_the_ordered_softmax_by_hand(self) -> None:
        # A quarter of the targets is ordered; a half of the weight goes to them: 0.5 + 0.5 / 0.25 = 2.5 for those.
        found = losses.ordered_softmax_loss(tensor(1.0, 2.0, 3.0, 4.0), torch.tensor([0, 0, 1, 0]), 0.25, 0.5)
        assert found.tolist() == pytest.approx([0.5, 1.0, 7.5, 2.0])

    def test_the_ordered_softmax_of_every_click_is_the_click_loss(self) -> None:
        click = tensor(1.0, 2.0, 3.0)
        for share in (0.3, 1.0):
            assert losses.ordered_softmax_loss(click, torch.ones(3), 1.0, share).tolist() == pytest.approx(
                click.tolist()
            )


class TestScalarisations:
    @pytest.mark.parametrize("pi", PREFERENCES)
    def test_plain(self, pi: tuple[float, float]) -> None:
        elementwise = tensor(*TWO_LOSSES)
        for name, ours in (("linear", losses.linear), ("chebyshev", losses.chebyshev)):
            expected = [getattr(plain, name)(each, pi) for each in TWO_LOSSES]
            np.testing.assert_allclose(ours(elementwise, tensor(*pi)).numpy(), expected, rtol=1e-12, atol=1e-12)

    def test_the_ends_are_the_losses(self) -> None:
        elementwise = tensor((3.0, 1.0))
        assert losses.linear(elementwise, tensor(1.0, 0.0)).tolist() == [3.0]
        assert losses.linear(elementwise, tensor(0.0, 1.0)).tolist() == [1.0]

    def test_chebyshev_by_hand(self) -> None:
        # Weighted losses of mu ln 6 and mu ln 2: mu ln((6 + 2) / 2).
        found = losses.chebyshev(tensor((2 * math.log(6), 2 * LN2)), tensor(0.5, 0.5), smoothness=1.0)
        assert found.item() == pytest.approx(math.log(4))


class TestRegularisers:
    def test_the_paper_by_hand(self) -> None:
        elementwise, pi = tensor((3.0, 1.0)), tensor(0.5, 0.5)  # pihat = (3/4, 1/4)
        identity = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
        assert regularisers.non_uniformity(elementwise, pi).item() == pytest.approx(identity)
        first = math.sqrt(math.e) / (math.sqrt(math.e) + 1)  # softmax(3/4, 1/4) = softmax(1/2, 0)
        expected = first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first))
        assert regularisers.non_uniformity(elementwise, pi, g="softmax").item() == pytest.approx(expected)

    def test_the_released_form_by_hand(self) -> None:
        found = regularisers.non_uniformity(tensor((3.0, 1.0)), tensor(0.5, 0.5), form="released").item()
        assert found == pytest.approx(math.log(1 + math.sqrt(math.e)) - 0.25)  # -(ln s1 + ln s2) / 2
        first = math.sqrt(math.e) / (math.sqrt(math.e) + 1)
        assert found == pytest.approx(LN2 + plain.divergence([0.5, 0.5], [first, 1 - first]))

    @pytest.mark.parametrize("pi", [(1.0, 0.0), (0.0, 1.0)])
    def test_the_ends_of_the_front(self, pi: tuple[float, float]) -> None:
        # pihat is pi itself, whatever the losses are: nothing that training could change.
        elementwise = tensor((3.0, 1.0)).requires_grad_()
        first = math.e / (math.e + 1)
        expected = {
            ("paper", "identity"): LN2,
            ("paper", "softmax"): first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first)),
            ("released", "identity"): math.log(1 + math.e) - 0.5,
        }
        for (form, g), value in expected.items():
            found = regularisers.non_uniformity(elementwise, tensor(*pi), form, g)
            assert found.item() == pytest.approx(value)
            assert torch.autograd.grad(found.sum(), elementwise)[0].abs().max() < 1e-12

    def test_losses_of_zero(self) -> None:
        # pihat is (0, 0): no distribution, and nothing to even out.
        elementwise, pi = tensor((0.0, 0.0)), tensor(0.5, 0.5)
        assert regularisers.non_uniformity(elementwise, pi).item() == 0.0
        assert regularisers.non_uniformity(elementwise, pi, g="softmax").item() == pytest.approx(0.0)
        assert regularisers.non_uniformity(elementwise, pi, form="released").item() == pytest.approx(LN2)

    @pytest.mark.parametrize("pi", PREFERENCES)
    @pytest.mark.parametrize(("form", "g"), [("paper", "identity"), ("paper", "softmax"), ("released", "identity")])
    def test_plain(self, form: str, g: str, pi: tuple[float, float]) -> None:
        found = regularisers.non_uniformity(tensor(*TWO_LOSSES), tensor(*pi), form, g)
        expected = [
            plain.released_regulariser(each, pi) if form == "released" else plain.paper_regulariser(each, pi, g)
            for each in TWO_LOSSES
        ]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("pi", PREFERENCES)
    def test_the_cosine(self, pi: tuple[float, float]) -> None:
        expected = [plain.cosine_regulariser(each, pi) for each in TWO_LOSSES]
        np.testing.assert_allclose(regularisers.cosine(tensor(*TWO_LOSSES), tensor(*pi)).numpy(), expected, rtol=1e-12)

    def test_the_cosine_by_hand(self) -> None:
        elementwise = tensor((3.0, 4.0), (4.0, 3.0))
        assert regularisers.cosine(elementwise, tensor(0.6, 0.8)).tolist() == pytest.approx([-1.0, -0.96])
        assert regularisers.cosine(elementwise, tensor(1.0, 0.0)).tolist() == pytest.approx([-0.6, -0.8])

    def test_the_cosine_of_losses_of_zero(self) -> None:
        assert regularisers.cosine(tensor((0.0, 0.0)), tensor(0.5, 0.5)).tolist() == [0.0]

    def test_the_cosine_and_chebyshev_of_three_objectives(self) -> None:
        elementwise, pi = (3.0, 2.0, 1.0), (0.2, 0.3, 0.5)
        found = regularisers.cosine(tensor(elementwise), tensor(*pi)).item()
        assert found == pytest.approx(-(0.6 + 0.6 + 0.5) / math.sqrt(14 * 0.38))
        smooth = losses.chebyshev(tensor(elementwise), tensor(*pi)).item()
        assert smooth == pytest.approx(plain.chebyshev(elementwise, pi))
        assert smooth == pytest.approx(0.1 * (6 + math.log((2 + math.exp(-1)) / 3)))

    def test_three_objectives(self) -> None:
        elementwise, pi = (3.0, 2.0, 1.0), (0.2, 0.3, 0.5)
        found = regularisers.non_uniformity(tensor(elementwise), tensor(*pi)).item()
        # Weighted losses .6, .6, .5 of 1.7: each share against a third.
        assert found == pytest.approx(sum(part / 1.7 * math.log(3 * part / 1.7) for part in (0.6, 0.6, 0.5)))
        released = regularisers.non_uniformity(tensor(elementwise), tensor(*pi), form="released").item()
        assert released == pytest.approx(plain.released_regulariser(elementwise, pi))
