import copy

import pytest
import torch
from torch import nn

from multitron_core.training.optimiser import Adam


def small() -> nn.ModuleDict:
    torch.manual_seed(1)
    return nn.ModuleDict({"embedding": nn.Embedding(10, 4, padding_idx=0), "linear": nn.Linear(4, 3)})


def step(model: nn.ModuleDict, adam: Adam, rows: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model["linear"].parameters():
        parameter.grad = torch.randn_like(parameter)
    adam.step(torch.tensor(rows), torch.randn(len(rows), 4), learning_rate=0.1)


def test_dense_adam_is_torch_adam():
    model, other = small(), small()
    adam, expected = Adam(model, model["embedding"].weight, lazy=False), torch.optim.Adam(other.parameters(), lr=0.1)
    for seed, rows in enumerate([[1, 2, 3], [3, 9], [5], [1, 5]]):
        step(model, adam, rows, seed)
        torch.manual_seed(seed)
        for parameter in other["linear"].parameters():
            parameter.grad = torch.randn_like(parameter)
        other["embedding"].weight.grad = torch.zeros(10, 4)
        other["embedding"].weight.grad[rows] = torch.randn(len(rows), 4)
        expected.step()
    for found, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_lazy_adam_moves_only_the_rows_it_is_given():
    model = small()
    adam = Adam(model, model["embedding"].weight, lazy=True)
    step(model, adam, [2, 7], seed=1)
    before = model["embedding"].weight.detach().clone()
    step(model, adam, [7, 8], seed=2)
    moved = (model["embedding"].weight.detach() != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [7, 8]


@pytest.mark.parametrize("block_rows", [512, 3])
def test_lazy_adam_is_dense_adam_where_every_row_has_a_gradient(monkeypatch, block_rows):
    monkeypatch.setattr(optimiser, "BLOCK_ROWS", block_rows)
    models = [small(), small()]
    adams = [
        Adam(model, model["embedding"].weight, lazy=lazy) for model, lazy in zip(models, [True, False], strict=True)
    ]
    for seed in range(4):
        for model, adam in zip(models, adams, strict=True):
            step(model, adam, list(range(10)), seed)
    for found, wanted in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_restored_optimiser_goes_on_to_the_bit(lazy):
    model = small()
    adam = Adam(model, model["embedding"].weight, lazy=lazy)
    for seed in range(2):
        step(model, adam, [1, 4], seed)
    resumed = small()
    resumed.load_state_dict(copy.deepcopy(model.state_dict()))
    restored = Adam(resumed, resumed["embedding"].weight, lazy=lazy)
    restored.load({name: tensor.clone() for name, tensor in adam.state().items()})
    for current, optimiser in ((model, adam), (resumed, restored)):
        step(current, optimiser, [4, 6], seed=5)
    for found, wanted in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, wanted)
