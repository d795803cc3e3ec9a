from __future__ import annotations

import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.training.devices import pick_device, search_dtype, threads, uses_bfloat16


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),  # Arm's name
    ],
)
def test_search_dtype_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: torch.dtype
) -> None:
    # A processor cannot be given as an argument.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    cpu = torch.device("cpu")
    assert search_dtype("auto", cpu) == expected
    assert search_dtype("float32", cpu) == torch.float32
    assert search_dtype("bfloat16", cpu) == torch.bfloat16


def test_search_dtype_of_older_torch_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert search_dtype("auto", torch.device("cpu")) == torch.float32


def test_pick_device_refuses_what_is_not_there() -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(InputError, match="unknown device"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(InputError, match="CUDA is not available"):
            pick_device("cuda:1")


def test_uses_bfloat16_on_request_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert [uses_bfloat16(setting, cpu) for setting in ("auto", "float32", "bfloat16")] == [False, False, True]


def test_threads_are_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    inside = []

    def fail() -> None:
        with threads(before + 1):
            inside.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [before + 1]
    assert torch.get_num_threads() == before
    with threads(0):
        assert torch.get_num_threads() == before
