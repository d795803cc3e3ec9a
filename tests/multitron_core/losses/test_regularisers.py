from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core import losses
from multitron_core.errors import InputError


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_non_uniformity_by_hand() -> None:
    # pihat = (.9, .1): the released form gives 0.7711, equation 3 with softmax 0.074.
    elementwise, pi = torch.tensor([[0.9, 0.1]]), torch.tensor([0.5, 0.5])
    assert losses.non_uniformity(elementwise, pi, "released").item() == pytest.approx(0.7711, abs=5e-5)
    assert losses.non_uniformity(elementwise, pi, "paper", "softmax").item() == pytest.approx(0.074, abs=5e-4)
    identity = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert losses.non_uniformity(elementwise, pi, "paper", "identity").item() == pytest.approx(identity)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("g", ["identity", "softmax"])
def test_non_uniformity_of_equal_weighted_losses_is_zero(k: int, g: str) -> None:
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
def test_non_uniformity_is_bounded_with_finite_gradient(
    elementwise: list[tuple[float, float]], pi_order: float, kind: tuple[str, str]
) -> None:
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


def test_non_uniformity_takes_one_pi_per_step() -> None:
    elementwise, pi = numbers(1, 6, 2).abs(), torch.rand(6, 2)
    whole = losses.non_uniformity(elementwise, pi)
    single = torch.cat([losses.non_uniformity(elementwise[i : i + 1], pi[i]) for i in range(6)])
    torch.testing.assert_close(whole, single)


@pytest.mark.parametrize(("form", "g"), [("other", "identity"), ("paper", "other")])
def test_non_uniformity_refuses_unknown_names(form: str, g: str) -> None:
    with pytest.raises(InputError, match="other"):
        losses.non_uniformity(torch.ones(1, 2), torch.ones(2), form, g)


def test_cosine_is_lowest_on_the_ray_of_pi() -> None:
    pi = torch.tensor([0.2, 0.8])
    found = losses.cosine(torch.tensor([[1.0, 4.0], [4.0, 1.0]]), pi)
    assert found[0].item() == pytest.approx(-1.0, abs=1e-5)
    assert found[1] > found[0]


def test_regulariser_by_name() -> None:
    elementwise, pi = numbers(3, 4, 2).abs(), torch.tensor([0.3, 0.7])
    released = losses.non_uniformity(elementwise, pi, "released")
    assert torch.equal(losses.regulariser("released")(elementwise, pi), released)
    for g in ("identity", "softmax"):
        paper = losses.non_uniformity(elementwise, pi, "paper", g)
        assert torch.equal(losses.regulariser("paper", g)(elementwise, pi), paper)
    assert torch.equal(losses.regulariser("cosine")(elementwise, pi), losses.cosine(elementwise, pi))
    assert losses.regulariser("none")(elementwise, pi).tolist() == [0.0] * 4
