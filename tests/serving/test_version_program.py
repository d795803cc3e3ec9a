"""The exported programs of a version: the same lists as the model folder, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serving import version_program
from serving.export import export_version
from serving.golden import compare_lists, golden_requests
from serving.in_process import InProcessScorer
from serving.version_program import VersionProgram, check_files, map_safetensors, rounding_pays
from tests.serving.conftest import write_model


@pytest.mark.slow
@pytest.mark.parametrize(("on_gpu", "rounding"), [(False, torch.int8), (True, torch.bfloat16)])
def test_version_program_with_a_screen_gives_the_lists(
    tmp_path: Path, on_gpu: bool, rounding: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = write_model(tmp_path / "model", own_clicks="added")
    weights = load_file(model_dir / "weights.safetensors")
    save_file({**weights, "own_clicks": torch.tensor([0.3, 0.9])}, model_dir / "weights.safetensors")
    export_version(model_dir, tmp_path / "1", on_gpu=on_gpu)
    measured = list[torch.dtype]()

    def always_pays(device: torch.device, dtype: torch.dtype) -> bool:
        measured.append(dtype)
        return True

    # Which product is faster depends on the machine; this test needs the screened program on every one.
    monkeypatch.setattr(version_program, "rounding_pays", always_pays)
    program = VersionProgram(str(tmp_path / "1"))
    assert measured == [rounding]
    assert program.chosen == f"screened in {rounding}".replace("torch.", "")
    expected = InProcessScorer(model_dir)
    for request in golden_requests(expected.live_model(), None, np.array([0.3, 0.7], np.float32), 20):
        items, lengths, pi = map(torch.from_numpy, (request.items, request.lengths, request.pi))
        excluded = torch.zeros(len(items), 1, dtype=torch.int64)
        index, scores = program.top_k(items, lengths, pi, 20, excluded, program.all_allowed)
        assert compare_lists(expected.top_k(request), (index.numpy(), scores.numpy())) is None


def test_version_program_scores_in_batches_of_its_memory(deployed: Path) -> None:
    """The lists do not depend on the memory limit, which decides how many sessions are scored together."""
    found = []
    for memory in (0, 256):  # 0: one session per batch
        program = VersionProgram(str(deployed / "multitron" / "1"), score_memory_mib=memory)
        items = torch.arange(1, 31).view(10, 3)
        pi = torch.full((10, 2), 0.5)
        excluded = torch.zeros(10, 1, dtype=torch.int64)
        found.append(program.top_k(items, torch.full((10,), 3), pi, 4, excluded, program.all_allowed))
    assert (found[0][0] == found[1][0]).all()
    torch.testing.assert_close(found[0][1], found[1][1])


def test_rounding_pays_never_in_int8_on_a_gpu() -> None:
    assert not rounding_pays(torch.device("cuda"), torch.int8)  # needs no GPU: the answer is not measured


def test_check_files_names_a_changed_file(repository: Path) -> None:
    folder = repository / "multitron" / "1"
    assert check_files(str(folder))["model_version"] == "first"
    (folder / "model.py").write_text("")
    with pytest.raises(ValueError, match=r"differs from its checksum: .*model\.py"):
        check_files(str(folder))


def test_map_safetensors_equals_the_library(tmp_path: Path) -> None:
    tensors = {
        "numbers": torch.randn(3, 5),
        "rounded": torch.randn(4).to(torch.bfloat16),
        "bytes": torch.arange(-4, 4, dtype=torch.int8).view(2, 4),
    }
    save_file(tensors, tmp_path / "file.safetensors", metadata={"format": "pt"})
    found = map_safetensors(str(tmp_path / "file.safetensors"))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_map_safetensors_refuses_other_types(tmp_path: Path) -> None:
    save_file({"index": torch.arange(3)}, tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match="index is I64, expected one of"):
        map_safetensors(str(tmp_path / "file.safetensors"))
