import math

import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.training.checkpoint import load_checkpoint, save_checkpoint


def test_tensors_and_state_come_back_to_the_bit(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.randn(4, 2).T}
    state = {"epoch": 3, "loss": 0.1 + 0.2, "best": math.inf, "history": [{"x": 1 / 3}]}
    save_checkpoint(tmp_path / "new" / "run.checkpoint", tensors, state)
    found, found_state = load_checkpoint(tmp_path / "new" / "run.checkpoint")
    assert found_state == state
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"
    save_checkpoint(path, {"a": torch.ones(2)}, {"epoch": 1})

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"a": torch.zeros(2)}, {"epoch": 2})
    tensors, state = load_checkpoint(path)
    assert state == {"epoch": 1}
    assert tensors["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint at all"])
def test_a_damaged_checkpoint_is_refused_with_its_mend(tmp_path, content):
    path = tmp_path / "run.checkpoint"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="resume=False"):
        load_checkpoint(path)


def test_a_cut_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.checkpoint"
    save_checkpoint(path, {"a": torch.randn(100)}, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(path)
