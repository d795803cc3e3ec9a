"""The scoring program against a search that sorts every score."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multitron_core.config import ModelConfig
from multitron_core.model import MultiTRON
from serving import program as program_module
from serving.program import ScoringProgram, Screen, _from_keys, _keys


def a_model(items: int, seed: int = 0) -> MultiTRON:
    torch.manual_seed(seed)
    return MultiTRON(ModelConfig(items=items, dimension=8, max_length=6, item_scale=1.0)).eval()


def screened(model: MultiTRON, **options: int) -> ScoringProgram:
    table = model.item_embedding.weight.detach()[1:]
    return ScoringProgram(model, screen=Screen.of(table), **options).eval()


def full_sort(scores: Tensor, k: int, excluded: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and scores of the k best by (score falling, index rising), from scores [sessions, items]."""
    scores = scores + allowed
    for row, barred in enumerate(excluded.tolist()):
        scores[row, [index - 1 for index in barred if index]] = -torch.inf
    ordered, order = torch.sort(scores, dim=1, descending=True, stable=True)
    return order[:, :k] + 1, ordered[:, :k]


def a_request(items: int, sessions: int, k: int, width: int, barred: int) -> tuple[Tensor, ...]:
    lengths = torch.randint(1, 7, (sessions,))
    clicks = torch.randint(1, items + 1, (sessions, 6)) * (torch.arange(6) < lengths[:, None])
    excluded = torch.stack([torch.randperm(items)[:width] + 1 for _ in range(sessions)])
    excluded[::2, -1] = 0
    allowed = torch.zeros(items)
    allowed[torch.randperm(items)[:barred]] = -torch.inf
    return clicks, lengths, torch.rand(sessions, 2), torch.tensor(k), excluded, allowed


@given(
    items=st.integers(3, 700),
    sessions=st.integers(1, 5),
    share=st.floats(0.0, 1.0),
    barred=st.floats(0.0, 0.6),
    seed=st.integers(0, 1000),
    with_screen=st.booleans(),
)
@settings(max_examples=60, deadline=None)
@torch.inference_mode()
def test_lists_equal_a_full_sort(
    items: int, sessions: int, share: float, barred: float, seed: int, with_screen: bool
) -> None:
    model = a_model(items, seed)
    width = min(3, items - 1)
    hidden = int(barred * (items - width - 1))
    k = max(1, int(share * (items - width - hidden)))
    clicks, lengths, pi, _, excluded, allowed = a_request(items, sessions, k, width, hidden)
    block = program_module.GROUP_ITEMS * 2  # several blocks, a last one that is no multiple of a group
    program = screened(model, block_items=block) if with_screen else ScoringProgram(model, block_items=block)
    index, scores = program(clicks, lengths, pi, k, excluded, allowed)
    wanted_index, wanted = full_sort(model.scores(model.last_states(clicks, lengths, pi)), k, excluded, allowed)
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-6)
    assert index.dtype == torch.int32
    assert torch.isfinite(scores).all()
    # Two sums of the same products may order near ties differently; an item must have its score all the same.
    own = (model.scores(model.last_states(clicks, lengths, pi)) + allowed).gather(1, index.long() - 1)
    torch.testing.assert_close(own, scores, rtol=1e-5, atol=1e-6)
    assert (index == wanted_index).float().mean() > 0.99
    assert not (index[:, :, None] == excluded[:, None, :]).any()
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("with_screen", [False, True])
@torch.inference_mode()
def test_equal_scores_are_ordered_by_index(with_screen: bool) -> None:
    model = a_model(400)
    model.item_embedding.weight[1:] = model.item_embedding.weight[7]  # every item is the same
    program = screened(model) if with_screen else ScoringProgram(model)
    index, scores = program(*a_request(400, 3, 0, 1, 0)[:3], 30, torch.zeros(3, 1, dtype=torch.int64), torch.zeros(400))
    assert index.tolist() == [list(range(1, 31))] * 3
    assert (scores == scores[:, :1]).all()


@torch.inference_mode()
def test_the_screen_proves_most_lists_and_never_a_wrong_one() -> None:
    model = a_model(3000)
    program = screened(model)
    proven = []
    prove = program._proven

    def watch(*arguments: Tensor) -> Tensor:
        proven.append(prove(*arguments))
        return proven[-1]

    program._proven = watch  # type: ignore[method-assign]
    clicks, lengths, pi, _, excluded, allowed = a_request(3000, 400, 20, 2, 0)
    program(clicks, lengths, pi, 20, excluded, allowed)
    assert proven[0].float().mean() > 0.9
    # Rounding that hides everything must leave nothing proven, and the lists must stay right.
    program.screen_table = torch.zeros_like(program.screen_table)
    program.screen_norms = torch.stack([torch.tensor(0.0), model.item_embedding.weight.norm(dim=1).max()])
    index, _ = program(clicks, lengths, pi, 20, excluded, allowed)
    assert not proven[1].any()
    wanted, _ = full_sort(model.scores(model.last_states(clicks, lengths, pi)), 20, excluded, allowed)
    assert (index == wanted).float().mean() > 0.999


@torch.inference_mode()
def test_lists_that_cannot_be_filled_end_in_minus_infinity() -> None:
    model = a_model(100)
    clicks, lengths, pi, _, excluded, allowed = a_request(100, 2, 0, 1, 0)
    allowed[5:] = -torch.inf
    for program in (ScoringProgram(model), screened(model)):
        _, scores = program(clicks, lengths, pi, 10, excluded * 0, allowed)
        assert torch.isfinite(scores[:, :5]).all()
        assert torch.isneginf(scores[:, 5:]).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50))
def test_keys_order_as_scores_then_index(values: list[float]) -> None:
    scores = torch.tensor([values])
    index = torch.arange(1, len(values) + 1)[None, :]
    best, _ = torch.topk(_keys(scores, index), len(values))
    found, place = _from_keys(best)
    assert place[0].tolist() == sorted(range(1, len(values) + 1), key=lambda i: (-values[i - 1], i))
    assert found[0].tolist() == sorted(values, reverse=True)


def test_the_screen_bounds_its_rounding() -> None:
    table = torch.randn(500, 16)
    screen = Screen.of(table)
    kept, lost = screen.norms.tolist()
    assert screen.table.dtype == torch.bfloat16
    assert kept == pytest.approx(screen.table.float().norm(dim=1).max().item())
    assert lost == pytest.approx((table - screen.table.float()).norm(dim=1).max().item())
