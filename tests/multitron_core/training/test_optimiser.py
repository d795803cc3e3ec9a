from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from multitron_core.training import optimiser
from multitron_core.training.config import OptimiserSettings, ScheduleSettings
from multitron_core.training.optimiser import Adam, clip_gradients, learning_rate


def weight(model: nn.ModuleDict) -> torch.Tensor:
    """The embedding's weight."""
    embedding = model["embedding"]
    assert isinstance(embedding, nn.Embedding)
    return embedding.weight


def small() -> nn.ModuleDict:
    torch.manual_seed(1)
    return nn.ModuleDict({"embedding": nn.Embedding(10, 4, padding_idx=0), "linear": nn.Linear(4, 3)})


def step(model: nn.ModuleDict, adam: Adam, rows: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model["linear"].parameters():
        parameter.grad = torch.randn_like(parameter)
    adam.step(torch.tensor(rows), torch.randn(len(rows), 4), learning_rate=0.1)


def test_adam_dense_matches_torch() -> None:
    model, other = small(), small()
    adam, expected = Adam(model, weight(model), lazy=False), torch.optim.Adam(other.parameters(), lr=0.1)
    for seed, rows in enumerate([[1, 2, 3], [3, 9], [5], [1, 5]]):
        step(model, adam, rows, seed)
        torch.manual_seed(seed)
        for parameter in other["linear"].parameters():
            parameter.grad = torch.randn_like(parameter)
        gradient = torch.zeros(10, 4)
        gradient[rows] = torch.randn(len(rows), 4)
        weight(other).grad = gradient
        expected.step()
    for found, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_adam_lazy_updates_the_given_rows_only() -> None:
    model = small()
    adam = Adam(model, weight(model), lazy=True)
    step(model, adam, [2, 7], seed=1)
    before = weight(model).detach().clone()
    step(model, adam, [7, 8], seed=2)
    moved = (weight(model).detach() != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [7, 8]


@pytest.mark.parametrize("block_rows", [512, 3])
def test_adam_lazy_matches_dense_if_all_rows_have_a_gradient(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(optimiser, "BLOCK_ROWS", block_rows)
    models = [small(), small()]
    adams = [Adam(model, weight(model), lazy=lazy) for model, lazy in zip(models, [True, False], strict=True)]
    for seed in range(4):
        for model, adam in zip(models, adams, strict=True):
            step(model, adam, list(range(10)), seed)
    for found, wanted in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("lazy", [True, False])
def test_adam_restored_continues_exactly(lazy: bool) -> None:
    model = small()
    adam = Adam(model, weight(model), lazy=lazy)
    for seed in range(2):
        step(model, adam, [1, 4], seed)
    resumed = small()
    resumed.load_state_dict(copy.deepcopy(model.state_dict()))
    restored = Adam(resumed, weight(resumed), lazy=lazy)
    restored.load({name: tensor.clone() for name, tensor in adam.state().items()})
    for current, its_adam in ((model, adam), (resumed, restored)):
        step(current, its_adam, [4, 6], seed=5)
    for found, wanted in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("step", "shape", "expected"),
    [
        (0, "constant", 0.1),  # one of four parts of the warm-up
        (2, "constant", 0.3),
        (3, "constant", 0.4),
        (19, "constant", 0.4),
        (0, "cosine", 0.1),
        (10, "cosine", 0.2),
        (20, "cosine", 0.0),
    ],
)
def test_learning_rate_by_hand(step: int, shape: str, expected: float) -> None:
    schedule = ScheduleSettings(warmup_steps=3, shape=shape)  # type: ignore[arg-type]
    found = learning_rate(step, 20, OptimiserSettings(learning_rate=0.4), schedule)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("limit", "norm"), [(0.0, 13.0), (20.0, 13.0), (1.3, 1.3)])
def test_clip_gradients_limits_the_common_norm(limit: float, norm: float) -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]
    clip_gradients(gradients, limit)
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm().item() == pytest.approx(norm, rel=1e-5)
    assert (gradients[0][0] / gradients[1][0, 0]).item() == pytest.approx(0.25)
