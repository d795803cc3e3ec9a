from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.losses import hard_negatives
from multitron_core.losses.hard_negatives import hardest_logits
from multitron_core.losses.negative_table import NegativeTable
from multitron_core.losses.objective_losses import click_loss


def drawn(seed: int, b: int, u: int, n: int, sessions: int) -> NegativeTable:
    generator = torch.Generator().manual_seed(seed)
    batch_copies = torch.randint(0, 3, (sessions, b), generator=generator).float()
    return NegativeTable(
        batch_copies=batch_copies,
        uniform_copies=torch.randint(1, 4, (u,), generator=generator).float(),
        absent=batch_copies == 0,
        session_of_step=torch.arange(n) % sessions,
        targets=torch.randint(0, b, (n,), generator=generator),
    )


def plain_loss(
    states: torch.Tensor, table: torch.Tensor, negatives: NegativeTable, kept: int, mask_targets: bool
) -> torch.Tensor:
    """The formula: every copy of every negative, a gradient through all of them, then the top k."""
    losses = []
    for i, state in enumerate(states):
        copies = torch.cat([negatives.batch_copies[negatives.session_of_step[i]], negatives.uniform_copies])
        if mask_targets:
            copies[negatives.targets[i]] = 0
        columns = torch.repeat_interleave(torch.arange(len(table)), copies.long())
        logits = table[columns] @ state
        if negatives.correction is not None:
            logits = logits - negatives.correction[columns]
        hardest = logits.topk(min(kept, len(logits))).values
        losses.append(click_loss(state[None] @ table[negatives.targets[i]], hardest[None])[0])
    return torch.stack(losses)


@pytest.mark.parametrize("mask_targets", [True, False])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("search", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("b", "u", "kept"), [(20, 600, 15), (20, 600, 1), (12, 30, 25), (6, 0, 4), (6, 3, 100), (50, 4000, 100)]
)
def test_hardest_logits_match_the_plain_formula(
    b: int, u: int, kept: int, search: torch.dtype, corrected: bool, mask_targets: bool
) -> None:
    torch.manual_seed(3)
    negatives = drawn(5, b, u, n=23, sessions=4)
    if corrected:
        negatives = negatives._replace(correction=torch.randn(b + u))
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for results in (found, expected):
        torch.manual_seed(3)
        states, table = torch.randn(23, 8).requires_grad_(), torch.randn(b + u, 8).requires_grad_()
        if results is expected:
            loss = plain_loss(states, table, negatives, kept, mask_targets)
        else:
            logits = hardest_logits(states, table, negatives, kept=kept, mask_targets=mask_targets, search=search)
            loss = click_loss((states * table[negatives.targets]).sum(dim=1), logits)
        loss.sum().backward()
        assert states.grad is not None
        assert table.grad is not None
        results += [loss.detach(), states.grad, table.grad]
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    for gradient, plain in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(gradient, plain, atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 100),
    st.floats(0.01, 10.0),
    st.sampled_from(["random", "close together", "of many lengths", "negative"]),
    st.sampled_from([0.0, 1.0, 30.0]),
    st.integers(0, 99),
)
def test_hardest_logits_of_a_bfloat16_search_are_exact(
    kept: int, scale: float, kind: str, correction: float, seed: int
) -> None:
    negatives = drawn(seed, 50, 4000, n=20, sessions=4)
    # No copies: equal logits of unequal copies would make the order of what is equal matter.
    negatives = negatives._replace(batch_copies=(~negatives.absent).float(), uniform_copies=torch.ones(4000))
    torch.manual_seed(seed)
    table, state = torch.randn(4050, 64), torch.randn(64)
    if kind == "close together":
        table = state + 0.1 * table  # logits that bfloat16 hardly tells apart
    elif kind == "of many lengths":
        table *= torch.rand(4050, 1)
    elif kind == "negative":
        table = 0.1 * table - state
    states = scale * (state + 0.05 * torch.randn(20, 64))
    if correction:
        negatives = negatives._replace(correction=correction * torch.randn(4050))
    exact, screened = (
        hardest_logits(states, table, negatives, kept=kept, mask_targets=True, search=search)
        for search in (torch.float32, torch.bfloat16)
    )
    rounding = 1e-6 * states.norm(dim=1, keepdim=True) * table.norm(dim=1).max()  # of sums in another order
    rounding = rounding + 4e-6 * correction
    assert ((screened - exact).abs() <= rounding).all()


@pytest.mark.parametrize("search", [torch.float32, torch.bfloat16])
def test_hardest_logits_with_a_correction_by_hand(search: torch.dtype) -> None:
    # One session, its target, and four more items with logits 2, 1.75, 1 and -4; the first is drawn four times as often
    # as a uniform sampler draws it and the last two half as often: log 4 = 1.386294 and log 0.5 = -0.693147.
    negatives = NegativeTable(
        batch_copies=torch.tensor([[0.0]]),
        uniform_copies=torch.tensor([1.0, 1.0, 1.0, 1.0]),
        absent=torch.tensor([[True]]),
        session_of_step=torch.tensor([0]),
        targets=torch.tensor([0]),
    )
    corrected = negatives._replace(correction=torch.tensor([4.0, 4.0, 1.0, 0.5, 0.5]).log())
    states, table = torch.tensor([[2.0]]), torch.tensor([[0.25], [1.0], [0.875], [0.5], [-2.0]])

    def kept(drawn: NegativeTable, count: int) -> tuple[list[float], list[float]]:
        """The kept logits, and how much each item's embedding moves them: the state, 2, where it is kept."""
        leaf = table.clone().requires_grad_()
        logits = hardest_logits(states, leaf, drawn, kept=count, mask_targets=True, search=search)
        return logits[0].tolist(), torch.autograd.grad(logits.sum(), leaf)[0].flatten().tolist()

    assert kept(negatives, 2) == ([2.0, 1.75], [0.0, 2.0, 2.0, 0.0, 0.0])
    logits, moved = kept(corrected, 2)  # the first, 2 - 1.386294, is now behind the third, 1 + 0.693147
    assert logits == pytest.approx([1.75, 1.693147], abs=1e-6)
    assert moved == [0.0, 0.0, 2.0, 2.0, 0.0]
    assert kept(corrected, 4)[0] == pytest.approx([1.75, 1.693147, 0.613706, -3.306853], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.sampled_from([0.0, 0.5, -3.0]), st.booleans(), st.integers(0, 99))
def test_hardest_logits_ignore_a_constant_correction(kept: int, shift: float, mask_targets: bool, seed: int) -> None:
    negatives = drawn(seed, 20, 600, n=9, sessions=3)
    torch.manual_seed(seed)
    states, table = torch.randn(9, 8), torch.randn(620, 8)
    plain, shifted = (
        hardest_logits(states, table, each, kept=kept, mask_targets=mask_targets, search=torch.float32)
        for each in (negatives, negatives._replace(correction=torch.full((620,), shift)))
    )
    torch.testing.assert_close(shifted, plain - shift, atol=1e-5, rtol=0)


def test_screen_margin_covers_roundings_in_one_direction() -> None:
    half, d = 2.0**-8, 64  # half of what lies between two numbers of bfloat16 just above 1
    higher, lower = torch.ones(d), torch.ones(d)
    higher[:16], lower[:16] = 1 + 0.98 * half, 1 + 1.02 * half  # one is rounded down, the other up
    higher[16:32] = 1 + 0.08 * half
    states = torch.ones(3, d)
    states[:, 32:] = -0.9  # so that the logits are small beside the norms
    table = torch.zeros(4050, d)
    table[100:180], table[300:320] = lower, higher
    negatives = drawn(1, 50, 4000, n=3, sessions=3)._replace(uniform_copies=torch.ones(4000))
    screened = hardest_logits(states, table, negatives, kept=20, mask_targets=True, search=torch.bfloat16)
    torch.testing.assert_close(screened, (states @ table[300:320].T), atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 10.0), st.sampled_from(["both", "states", "table", "neither"]), st.integers(0, 99))
def test_screen_margin_is_twice_the_largest_rounding(scale: float, rounded: str, seed: int) -> None:
    torch.manual_seed(seed)
    states, table = scale * torch.randn(20, 64), torch.randn(400, 64) * torch.rand(400, 1)
    if rounded in ("states", "neither"):
        table = table.bfloat16().float()  # already a number of the screen's dtype
    if rounded in ("table", "neither"):
        states = states.bfloat16().float()
    screen = states.bfloat16(), table.bfloat16()
    margin = hard_negatives.screen_margin(states, screen[0], table, screen[1])
    moved = (screen[0].double() @ screen[1].double().T - states.double() @ table.double().T).abs()
    norms = states.norm(dim=1) * table.norm(dim=1).max()
    assert (2 * moved <= margin[:, None]).all()
    share = {"both": 2.0**-7, "states": 2.0**-8, "table": 2.0**-8, "neither": 0.0}[rounded]  # as if all were the worst
    assert (margin <= 2.02 * (share + 1e-5) * norms).all()


def test_screened_by_sorting_ranks_by_exact_logits() -> None:
    torch.manual_seed(3)
    states, table = torch.randn(60, 64), torch.randn(4050, 64)
    exact = states @ table.T
    exact[:, ::3] = -torch.inf  # excluded
    screened = (states.bfloat16() @ table.bfloat16().T).masked_fill(exact == -torch.inf, -torch.inf)
    values, columns = hard_negatives.screened_by_sorting(screened, states, table, k=100)
    torch.testing.assert_close(values, exact.topk(100, dim=1).values, atol=1e-5, rtol=0)
    torch.testing.assert_close(values, exact.gather(1, columns), atol=1e-5, rtol=0)


def test_hardest_logits_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    negatives = drawn(5, 20, 600, n=23, sessions=4)
    torch.manual_seed(3)
    states, table = torch.randn(23, 8), torch.randn(620, 8)
    whole = hardest_logits(states, table, negatives, kept=15, mask_targets=True, search=torch.float32)
    monkeypatch.setitem(hard_negatives.BLOCK_CELLS, "cpu", 620 * 7)
    blocks = hardest_logits(states, table, negatives, kept=15, mask_targets=True, search=torch.float32)
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=0)
