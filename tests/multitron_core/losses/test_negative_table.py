from __future__ import annotations

import math

import numpy as np
import torch

from multitron_core.losses.negative_table import NegativeTable, log_copies, mask_not_drawn
from multitron_core.losses.negatives import Negatives

NEGATIVES = Negatives(
    batch_items=np.array([2, 5, 7]),
    uniform_items=np.array([3, 9]),
    batch_copies=np.array([[0, 2, 1], [1, 0, 0]], dtype=np.int32),
    uniform_copies=np.array([4, 1]),
    inputs=np.array([0, 1, 2]),
    targets=np.array([1, 2, 0]),
)
SESSION_OF_STEP = np.array([0, 0, 1])
INF = math.inf


class TestNegativeTable:
    def test_of_a_whole_batch(self) -> None:
        table = NegativeTable.of(NEGATIVES, SESSION_OF_STEP)
        assert table.batch_copies.tolist() == [[0.0, 2.0, 1.0], [1.0, 0.0, 0.0]]
        assert table.absent.tolist() == [[True, False, False], [False, True, True]]
        assert table.uniform_copies.tolist() == [4.0, 1.0]
        assert table.targets.tolist() == [1, 2, 0]
        assert table.padding is None
        assert table.correction is None

    def test_of_some_sessions_with_a_correction(self) -> None:
        correction = np.arange(10) / 2
        table = NegativeTable.of(
            NEGATIVES, np.array([0]), sessions=slice(1, None, 2), steps=np.array([2]), correction=correction
        )
        assert table.batch_copies.tolist() == [[1.0, 0.0, 0.0]]
        assert table.targets.tolist() == [0]
        assert table.correction is not None
        assert table.correction.tolist() == [1.0, 2.5, 3.5, 1.5, 4.5]
        assert table.correction.dtype == torch.float32

    def test_map_tensors_skips_what_is_not_there(self) -> None:
        table = NegativeTable.of(NEGATIVES, SESSION_OF_STEP).map_tensors(lambda tensor: tensor[:1])
        assert [None if tensor is None else len(tensor) for tensor in table] == [1, 1, 1, 1, 1, None, None]


def test_log_copies_counts_the_first_draws() -> None:
    table = NegativeTable.of(NEGATIVES, SESSION_OF_STEP)
    columns = torch.tensor([[3, 1, 2], [1, 3, 4], [4, 0, 3]])  # four, two, one; two, four, one; one, one, four
    expected = torch.tensor([[4.0, 1.0, 0.0], [2.0, 3.0, 0.0], [1.0, 1.0, 3.0]]).log()
    assert torch.equal(log_copies(columns, table, kept=5), expected)


def test_mask_not_drawn_masks_columns_padding_and_targets() -> None:
    table = NegativeTable.of(NEGATIVES, SESSION_OF_STEP)
    logits = torch.zeros(3, 5)
    mask_not_drawn(logits, table, slice(0, 3), mask_targets=False)
    assert logits.tolist() == [[-INF, 0, 0, 0, 0], [-INF, 0, 0, 0, 0], [0, -INF, -INF, 0, 0]]
    logits = torch.zeros(2, 5)
    padded = table._replace(padding=torch.tensor([False, True]))
    mask_not_drawn(logits, padded, torch.tensor([0, 2]), mask_targets=True)
    assert logits.tolist() == [[-INF, -INF, 0, 0, -INF], [-INF, -INF, -INF, 0, -INF]]
