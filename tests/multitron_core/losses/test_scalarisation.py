from __future__ import annotations

import pytest
import torch

from multitron_core import losses


def test_chebyshev_is_near_the_largest_weighted_loss() -> None:
    elementwise, pi = torch.tensor([[4.0, 1.0], [1.0, 8.0]]), torch.tensor([0.5, 0.5])
    assert losses.chebyshev(elementwise, pi, smoothness=1e-3).tolist() == pytest.approx([2.0, 4.0], abs=1e-2)


def test_scalarisation_by_name() -> None:
    elementwise, pi = torch.tensor([[4.0, 1.0], [1.0, 8.0]]), torch.tensor([0.25, 0.75])
    assert losses.scalarisation("linear")(elementwise, pi).tolist() == [1.75, 6.25]
    assert torch.equal(losses.scalarisation("chebyshev")(elementwise, pi), losses.chebyshev(elementwise, pi))
