import pytest
import torch

from multitron_core.training.devices import search_dtype


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),  # Arm's name
    ],
)
def test_auto_searches_in_bfloat16_where_the_processor_multiplies_it(monkeypatch, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    cpu = torch.device("cpu")
    assert search_dtype("auto", cpu) == expected
    assert search_dtype("float32", cpu) == torch.float32
    assert search_dtype("bfloat16", cpu) == torch.bfloat16


def test_older_torch_searches_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert search_dtype("auto", torch.device("cpu")) == torch.float32
