import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core import hardest
from multitron_core.hardest import NegativeTable, hardest_logits, largest
from multitron_core.losses import click_loss


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 700),
    st.integers(1, 30),
    st.sampled_from(["normal", "few values", "many -inf", "all equal"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 99),
)
def test_largest_is_topk(n, columns, k, kind, dtype, seed):
    k = min(k, columns)
    logits = torch.randn(n, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if kind == "few values":
        logits = logits.round()
    elif kind == "many -inf":
        logits[logits < 1.5] = -torch.inf
    elif kind == "all equal":
        logits[:] = 0.25
    values, found = largest(logits, k)
    assert values.tolist() == logits.topk(k, dim=1).values.tolist()
    assert logits.gather(1, found).tolist() == values.tolist()
    assert all(len(set(row)) == k for row in found.tolist())


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
    """The formula as it is written: every copy of every negative, a gradient through all of them, then the top k."""
    losses = []
    for i, state in enumerate(states):
        copies = torch.cat([negatives.batch_copies[negatives.session_of_step[i]], negatives.uniform_copies])
        if mask_targets:
            copies[negatives.targets[i]] = 0
        columns = torch.repeat_interleave(torch.arange(len(table)), copies.long())
        logits = table[columns] @ state
        hardest = logits.topk(min(kept, len(logits))).values
        losses.append(click_loss(state[None] @ table[negatives.targets[i]], hardest[None])[0])
    return torch.stack(losses)


@pytest.mark.parametrize("mask_targets", [True, False])
@pytest.mark.parametrize(("b", "u", "kept"), [(20, 600, 15), (20, 600, 1), (12, 30, 25), (6, 0, 4), (6, 3, 100)])
def test_losses_and_gradients_are_those_of_the_plain_formula(b, u, kept, mask_targets):
    torch.manual_seed(3)
    negatives = drawn(5, b, u, n=23, sessions=4)
    found, expected = [], []
    for results, search in ((found, True), (expected, False)):
        torch.manual_seed(3)
        states, table = torch.randn(23, 8).requires_grad_(), torch.randn(b + u, 8).requires_grad_()
        if search:
            logits = hardest_logits(
                states, table, negatives, kept=kept, mask_targets=mask_targets, search=torch.float32
            )
            loss = click_loss((states * table[negatives.targets]).sum(dim=1), logits)
        else:
            loss = plain_loss(states, table, negatives, kept, mask_targets)
        loss.sum().backward()
        results += [loss.detach(), states.grad, table.grad]
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    for gradient, plain in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(gradient, plain, atol=1e-4, rtol=0)


def test_a_search_in_bfloat16_changes_the_loss_by_less_than_its_rounding():
    negatives = drawn(5, 50, 4000, n=60, sessions=4)
    torch.manual_seed(3)
    states, table = torch.randn(60, 64), torch.randn(4050, 64) * 0.2
    losses = [
        click_loss(
            (states * table[negatives.targets]).sum(dim=1),
            hardest_logits(states, table, negatives, kept=100, mask_targets=True, search=search),
        )
        for search in (torch.float32, torch.bfloat16)
    ]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=0)


def test_blocks_change_nothing(monkeypatch):
    negatives = drawn(5, 20, 600, n=23, sessions=4)
    torch.manual_seed(3)
    states, table = torch.randn(23, 8), torch.randn(620, 8)
    whole = hardest_logits(states, table, negatives, kept=15, mask_targets=True, search=torch.float32)
    monkeypatch.setitem(hardest._BLOCK_CELLS, "cpu", 620 * 7)
    blocks = hardest_logits(states, table, negatives, kept=15, mask_targets=True, search=torch.float32)
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=0)
