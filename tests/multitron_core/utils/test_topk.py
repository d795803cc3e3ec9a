from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitron_core.utils.topk import CHUNK, passing_columns, product, top_k, top_k_of_rows


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 700),
    st.integers(1, 30),
    st.sampled_from(["normal", "negative", "around 0", "few values", "many -inf", "all equal"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 99),
)
def test_top_k_matches_torch(n: int, columns: int, k: int, kind: str, dtype: torch.dtype, seed: int) -> None:
    k = min(k, columns)
    logits = torch.randn(n, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if kind == "negative":
        logits -= 9.0
    elif kind == "around 0":
        logits -= logits.topk(k, dim=1).values[:, -1:]  # the last of the largest is 0
    elif kind == "few values":
        logits = logits.round()
    elif kind == "many -inf":
        logits[logits < 1.5] = -torch.inf
    elif kind == "all equal":
        logits[:] = 0.25
    values, found = top_k(logits, k)
    assert values.tolist() == logits.topk(k, dim=1).values.tolist()
    assert logits.gather(1, found).tolist() == values.tolist()
    assert all(len(set(row)) == k for row in found.tolist())


def test_passing_columns_holds_all_within_the_margin() -> None:
    torch.manual_seed(1)
    logits = torch.randn(5, 100 * CHUNK)
    found = passing_columns(logits, 7, torch.full((5,), 0.1))
    assert found is not None
    counts, columns = found
    for row, of_row in zip(logits, columns.split(counts.tolist()), strict=True):
        needed = (row >= row.topk(7).values[-1] - 0.1).nonzero().flatten()
        assert set(needed.tolist()) <= set(of_row.tolist())


@pytest.mark.parametrize(
    "logits", [torch.zeros(2, 100 * CHUNK), torch.randn(2, CHUNK), torch.full((2, 1000), torch.nan)]
)
def test_passing_columns_gives_up_where_sorting_is_better(logits: torch.Tensor) -> None:
    assert passing_columns(logits, 3, torch.zeros(2)) is None


def test_top_k_of_rows_of_different_lengths() -> None:
    values, columns = torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0]), torch.tensor([7, 8, 9, 3, 1])
    best, found = top_k_of_rows(values, torch.tensor([3, 2]), columns, 2)
    assert best.tolist() == [[3.0, 2.0], [5.0, 4.0]]
    assert found.tolist() == [[8, 9], [3, 1]]


def test_product_writes_to_out() -> None:
    a, b, out = torch.randn(3, 4), torch.randn(4, 5), torch.zeros(3, 5)
    product(a, b, out)
    torch.testing.assert_close(out, a @ b)
