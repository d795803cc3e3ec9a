"""The scoring program compared with a full sort of all scores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multitron_core.model.config import ModelConfig
from multitron_core.model.transformer import MultiTRON
from serving import scoring_program as program_module
from serving.scoring_program import ScoringProgram, Screen, from_keys, screen_for, to_keys

ROUNDINGS = [None, torch.int8, torch.bfloat16]


@pytest.fixture(autouse=True, scope="module")
def small_groups() -> Iterator[None]:
    """Search the few hundred items of a test in nested groups, as a large catalogue is searched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_module, "SCREEN_TOPK", 16)
        yield


def some_model(items: int, seed: int = 0) -> MultiTRON:
    torch.manual_seed(seed)
    return MultiTRON(ModelConfig(items=items, dimension=8, max_length=6, item_scale=1.0)).eval()


def some_program(model: MultiTRON, rounding: torch.dtype | None = torch.int8, **options: int) -> ScoringProgram:
    table = model.item_embedding.weight.detach()[1:]
    return ScoringProgram(model, screen=Screen.of(table, rounding) if rounding else None, **options).eval()


def full_sort(scores: Tensor, k: int, excluded: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and scores of the k best by (score descending, index ascending), from scores [sessions, items]."""
    scores = scores + allowed
    for row, indices in enumerate(excluded.tolist()):
        scores[row, [index - 1 for index in indices if index]] = -torch.inf
    ordered, order = torch.sort(scores, dim=1, descending=True, stable=True)
    return order[:, :k] + 1, ordered[:, :k]


def some_request(items: int, sessions: int, k: int, width: int, hidden: int) -> tuple[Tensor, ...]:
    lengths = torch.randint(1, 7, (sessions,))
    clicks = torch.randint(1, items + 1, (sessions, 6)) * (torch.arange(6) < lengths[:, None])
    excluded = torch.stack([torch.randperm(items)[:width] + 1 for _ in range(sessions)])
    excluded[::2, -1] = 0
    allowed = torch.zeros(items)
    allowed[torch.randperm(items)[:hidden]] = -torch.inf
    return clicks, lengths, torch.rand(sessions, 2), torch.tensor(k), excluded, allowed


@given(
    items=st.integers(3, 700),
    sessions=st.integers(1, 5),
    share=st.floats(0.0, 1.0),
    hidden_share=st.floats(0.0, 0.6),
    seed=st.integers(0, 1000),
    rounding=st.sampled_from(ROUNDINGS),
)
@settings(max_examples=90, deadline=None)
@torch.inference_mode()
def test_scoring_program_equals_a_full_sort(
    items: int, sessions: int, share: float, hidden_share: float, seed: int, rounding: torch.dtype | None
) -> None:
    model = some_model(items, seed)
    width = min(3, items - 1)
    hidden = int(hidden_share * (items - width - 1))
    k = max(1, int(share * (items - width - hidden)))
    clicks, lengths, pi, _, excluded, allowed = some_request(items, sessions, k, width, hidden)
    block = program_module.GROUP_ITEMS * 2  # several blocks; the last one is not a multiple of a group
    program = some_program(model, rounding, block_items=block)
    index, scores = program(clicks, lengths, pi, k, excluded, allowed)
    wanted_index, wanted = full_sort(model.scores(model.last_states(clicks, lengths, pi)), k, excluded, allowed)
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-6)
    assert index.dtype == torch.int32
    assert torch.isfinite(scores).all()
    # Sums of the same products in another order may swap near ties, but each listed item has its score.
    recomputed = (model.scores(model.last_states(clicks, lengths, pi)) + allowed).gather(1, index.long() - 1)
    torch.testing.assert_close(recomputed, scores, rtol=1e-5, atol=1e-6)
    assert (index == wanted_index).float().mean() > 0.99
    assert not (index[:, :, None] == excluded[:, None, :]).any()
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("rounding", [None, torch.bfloat16])
@torch.inference_mode()
def test_scoring_program_on_a_gpu_equals_a_full_sort(rounding: torch.dtype | None, cuda: torch.device) -> None:
    model = some_model(5000)
    program = some_program(model, rounding, block_items=2048).to(cuda)
    clicks, lengths, pi, _, excluded, allowed = (tensor.to(cuda) for tensor in some_request(5000, 300, 20, 2, 1000))
    index, scores = program(clicks, lengths, pi, 20, excluded, allowed)
    every = model.scores(model.last_states(clicks, lengths, pi))
    wanted_index, wanted = full_sort(every.clone(), 20, excluded, allowed)
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((every + allowed).gather(1, index.long() - 1), scores, rtol=1e-5, atol=1e-6)
    assert (index == wanted_index).float().mean() > 0.99
    assert not (index[:, :, None] == excluded[:, None, :]).any()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@torch.inference_mode()
def test_scoring_program_orders_equal_scores_by_index(rounding: torch.dtype | None) -> None:
    model = some_model(400)
    model.item_embedding.weight[1:] = model.item_embedding.weight[7]  # all items are equal
    program = some_program(model, rounding)
    index, scores = program(
        *some_request(400, 3, 0, 1, 0)[:3], 30, torch.zeros(3, 1, dtype=torch.int64), torch.zeros(400)
    )
    assert index.tolist() == [list(range(1, 31))] * 3
    assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
@torch.inference_mode()
def test_proven_holds_for_most_lists_and_no_wrong_one(rounding: torch.dtype) -> None:
    model = some_model(3000)
    program = some_program(model, rounding)
    proven = []
    prove = program.proven

    def watch(states: Tensor, rounded: Tensor, last_rough: Tensor, last_exact: Tensor) -> Tensor:
        proven.append(prove(states, rounded, last_rough, last_exact))
        return proven[-1]

    program.proven = watch  # type: ignore[method-assign]  # the lists do not show which of them were proven
    clicks, lengths, pi, _, excluded, allowed = some_request(3000, 400, 20, 2, 0)
    program(clicks, lengths, pi, 20, excluded, allowed)
    assert proven[0].float().mean() > 0.9
    # Rounding to 0 proves nothing, and the lists stay correct.
    program.screen_table = torch.zeros_like(program.screen_table)
    program.screen_norms = torch.stack([torch.tensor(0.0), model.item_embedding.weight.norm(dim=1).max()])
    index, _ = program(clicks, lengths, pi, 20, excluded, allowed)
    assert not proven[1].any()
    wanted, _ = full_sort(model.scores(model.last_states(clicks, lengths, pi)), 20, excluded, allowed)
    assert (index == wanted).float().mean() > 0.999


@torch.inference_mode()
def test_scoring_program_ends_short_lists_in_minus_infinity() -> None:
    model = some_model(100)
    clicks, lengths, pi, _, excluded, allowed = some_request(100, 2, 0, 1, 0)
    allowed[5:] = -torch.inf
    for program in (some_program(model, rounding) for rounding in ROUNDINGS):
        _, scores = program(clicks, lengths, pi, 10, excluded * 0, allowed)
        assert torch.isfinite(scores[:, :5]).all()
        assert torch.isneginf(scores[:, 5:]).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50))
def test_to_keys_orders_by_score_then_index(values: list[float]) -> None:
    scores = torch.tensor([values])
    index = torch.arange(1, len(values) + 1)[None, :]
    best, _ = torch.topk(to_keys(scores, index), len(values))
    found, place = from_keys(best)
    assert place[0].tolist() == sorted(range(1, len(values) + 1), key=lambda i: (-values[i - 1], i))
    assert found[0].tolist() == sorted(values, reverse=True)


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
def test_screen_bounds_its_rounding(rounding: torch.dtype) -> None:
    table = torch.randn(500, 16)
    screen = Screen.of(table, rounding)
    kept, lost = screen.norms.tolist()
    assert screen.table.dtype == rounding
    rounded = screen.table.float() * screen.scale
    torch.testing.assert_close(rounded, table, rtol=2.0**-8, atol=0.6 * screen.scale.item() * (rounding == torch.int8))
    assert kept == pytest.approx(rounded.norm(dim=1).max().item())
    assert lost == pytest.approx((table - rounded).norm(dim=1).max().item())


def test_screen_for_a_coarse_table_or_a_gpu_is_bfloat16() -> None:
    table = torch.randn(500, 16)
    assert screen_for(table, on_gpu=False).table.dtype == torch.int8
    assert screen_for(table, on_gpu=True).table.dtype == torch.bfloat16
    table[3, 3] = 100.0
    assert screen_for(table, on_gpu=False).table.dtype == torch.bfloat16
    assert screen_for(torch.zeros(5, 4), on_gpu=False).norms.tolist() == [0.0, 0.0]
