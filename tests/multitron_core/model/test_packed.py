from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from multitron_core.model.config import ModelConfig
from multitron_core.model.packed import AttentionRows, packed_own_part, packed_states
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.batches import Batch, rectangles

LENGTHS = np.array([1, 1, 2, 5, 5, 8])


@pytest.mark.parametrize("own_clicks", ["attended", "added"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("positions", ["start", "end"])
@pytest.mark.parametrize("overhead", [0, 8, 1 << 30])
def test_packed_states_match_the_padded_model(own_clicks: str, heads: int, positions: str, overhead: int) -> None:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"heads": heads, "positions": positions, "own_clicks": own_clicks}
    config = ModelConfig(items=30, dimension=8, layers=3, max_length=8, **shape)
    model = MultiTRON(config).eval()
    if model.own_clicks is not None:
        model.own_clicks.data.copy_(torch.tensor([0.3, -0.7]))
    n = int(LENGTHS.sum())
    inputs = np.random.default_rng(1).integers(1, 31, n)
    batch = Batch(np.arange(6), LENGTHS, inputs, inputs, np.zeros(n, dtype=bool))
    pi = torch.rand(6, 2)
    step = np.arange(n) - np.repeat(batch.starts, LENGTHS)
    rows, first = [], 0
    for part in rectangles(batch, overhead):
        rows.append(AttentionRows(first, first + len(part.cells), torch.from_numpy(part.cells), *part.source.shape))
        first += len(part.cells)

    padded = torch.zeros(6, 8, dtype=torch.int64)
    padded[batch.session_of_step, step] = torch.from_numpy(inputs)
    expected = model(padded, torch.from_numpy(LENGTHS), pi)[batch.session_of_step, step]
    embeddings, pi_of_step = model.item_embedding(torch.from_numpy(inputs)), pi[batch.session_of_step]
    position = torch.from_numpy(step + (np.repeat(8 - LENGTHS, LENGTHS) if positions == "end" else 0))
    found = packed_states(model, embeddings, pi_of_step, position, rows)
    if model.own_clicks is not None:
        found = found + packed_own_part(model, embeddings, pi_of_step, rows)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
