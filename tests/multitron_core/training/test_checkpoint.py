from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from multitron_core.errors import InputError
from multitron_core.training.checkpoint import (
    TrainingState,
    load_checkpoint,
    load_training,
    save_checkpoint,
    save_training,
)
from multitron_core.training.optimiser import Adam


def test_load_checkpoint_restores_tensors_and_state_exactly(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.randn(4, 2).T}
    state: dict[str, Any] = {"epoch": 3, "loss": 0.1 + 0.2, "best": math.inf, "history": [{"x": 1 / 3}]}
    save_checkpoint(tmp_path / "new" / "run.checkpoint", tensors, state)
    found, found_state = load_checkpoint(tmp_path / "new" / "run.checkpoint")
    assert found_state == state
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_save_checkpoint_that_fails_keeps_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.checkpoint"
    save_checkpoint(path, {"a": torch.ones(2)}, {"epoch": 1})

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)  # a full disk cannot be made here
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"a": torch.zeros(2)}, {"epoch": 2})
    tensors, state = load_checkpoint(path)
    assert state == {"epoch": 1}
    assert tensors["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint at all"])
def test_load_checkpoint_refuses_a_damaged_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.checkpoint"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="resume=False"):
        load_checkpoint(path)


def test_load_checkpoint_refuses_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    save_checkpoint(path, {"a": torch.randn(100)}, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(path)


class TestTrainingState:
    def test_means_are_over_steps_not_batches(self) -> None:
        state = TrainingState()
        state.add_batch([1.0, 4.0], steps=3, seconds=0.5)
        state.add_batch([5.0, 0.0], steps=1, seconds=0.25)
        assert state.means() == [2.0, 3.0]
        assert (state.batch, state.steps, state.seconds) == (2, 4, 0.75)
        row = state.row(("loss", "click_loss"), sessions=30)
        expected = {"epoch": 1, "train_loss": 2.0, "train_click_loss": 3.0, "seconds": 0.75}
        assert row == {**expected, "sessions_per_second": 40.0}

    def test_next_epoch_keeps_history_and_best(self) -> None:
        state = TrainingState(
            epoch=2, batch=9, sums=[1.0], steps=3, history=[{"epoch": 1}], best_epoch=1, best_loss=0.5
        )
        assert state.next_epoch({"epoch": 2}) == TrainingState(
            epoch=3, history=[{"epoch": 1}, {"epoch": 2}], best_epoch=1, best_loss=0.5
        )

    @pytest.mark.parametrize(
        ("epoch", "best_epoch", "patience", "expected"),
        [(5, 0, 0, True), (4, 0, 0, False), (3, 0, 2, True), (2, 0, 2, False), (4, -1, 2, False)],
    )
    def test_finished(self, epoch: int, best_epoch: int, patience: int, expected: bool) -> None:
        assert TrainingState(epoch=epoch, best_epoch=best_epoch).finished(5, patience) is expected


def test_load_training_restores_model_optimiser_and_progress(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "linear": nn.Linear(3, 2)})
    weight = next(model.parameters())
    optimiser = Adam(model, weight, lazy=True)
    for parameter in model["linear"].parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step(torch.tensor([1, 2]), torch.randn(2, 3), learning_rate=0.1)
    state, best = TrainingState(epoch=1, batch=2, best_loss=0.1 + 0.2), {"embedding.weight": torch.randn(4, 3)}
    save_training(tmp_path / "file", model, optimiser, best, state, "identity")

    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    restored = Adam(other, next(other.parameters()), lazy=True)
    found, found_best = load_training(tmp_path / "file", other, restored, "identity")
    assert found == state
    assert torch.equal(found_best["embedding.weight"], best["embedding.weight"])
    assert all(torch.equal(*pair) for pair in zip(other.parameters(), model.parameters(), strict=True))
    assert all(torch.equal(restored.state()[name], tensor) for name, tensor in optimiser.state().items())
    with pytest.raises(InputError, match="other settings or other data"):
        load_training(tmp_path / "file", other, restored, "another")
