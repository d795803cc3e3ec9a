"""The device of a training, its precision, its CPU threads, and the processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from multitron_core.errors import InputError


def pick_device(device: str) -> str:
    """The name of the device to use: "auto" selects CUDA if it is available.

    Raises:
        InputError: an unknown name, or CUDA where it is not available.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("CUDA is not available", where="device", found=device, hint="use 'cpu' or 'auto'")
    if device != "cpu" and not device.startswith("cuda"):
        raise InputError("unknown device", where="device", found=device, hint="use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return device


def uses_bfloat16(setting: str, device: torch.device) -> bool:
    """Whether a precision setting ("auto", "float32", "bfloat16") means bfloat16; "auto" does on CUDA with bfloat16."""
    if setting == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return setting == "bfloat16"


def search_dtype(setting: str, device: torch.device) -> torch.dtype:
    """The dtype of the search for the hardest negatives, from its setting ("auto", "float32", "bfloat16").

    "auto" is bfloat16 where the device multiplies it faster. The logits that are kept are float32 in any case.
    """
    if setting == "auto" and device.type == "cpu":
        able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older torch
        fast = any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))
    else:
        fast = uses_bfloat16(setting, device)
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads inside the context; 0 keeps their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` started, if any, and yield the device of this process.

    NCCL joins processes on CUDA, one device each; gloo joins processes on a CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    name = pick_device(device)
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(name)
    dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
    try:
        yield name
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes that share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()
