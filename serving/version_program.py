"""Load and run the exported programs of a version folder with torch alone.

This file is copied into every version folder, next to `model.py`; it must not import this project. Weights are
memory-mapped: all instances and processes that use a version share one copy.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_PROGRAMS = 4
_loaded: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {}


class VersionProgram:
    """The program of a version, exact or screened, that is faster on this machine.

    Args:
        folder: a version folder, written by `export_version`.
        device: torch device that runs it.
        score_memory_mib: memory limit for the scores of one matrix product, in MiB.

    Raises:
        ValueError: a file is missing, differs from its checksum, or contains a tensor of an unexpected type.
    """

    def __init__(self, folder: str, *, device: str = "cpu", score_memory_mib: int = 256) -> None:
        _keep_freed_memory()
        self.manifest = check_files(folder)
        self.device = torch.device(device)
        self.items: int = self.manifest["items"]
        self.max_length: int = self.manifest["max_length"]
        self.objectives: int = self.manifest["objectives"]
        self._batch = max(1, (score_memory_mib << 20) // (4 * min(self.manifest["block_items"], self.items)))
        self.all_allowed = torch.zeros(self.items, device=self.device)
        weights = map_safetensors(os.path.join(folder, "weights.safetensors"))
        screen = map_safetensors(os.path.join(folder, "screen.safetensors"))
        dtype = screen["screen_table"].dtype
        screened = rounding_pays(self.device, dtype)
        self.chosen = f"screened in {str(dtype).removeprefix('torch.')}" if screened else "exact"
        if screened:
            weights |= screen
        # Sorted by name, as the program was exported.
        self._weights = {name: weight.to(self.device) for name, weight in sorted(weights.items())}
        name = "screened.pt2" if screened else "exact.pt2"
        self._program = _program(os.path.join(folder, name), self.manifest["files"][name])
        # The first call is slow. A program that cannot run must fail at loading, not at the first request.
        first = torch.ones(1, 1, dtype=torch.int64)
        pi = torch.full((1, self.objectives), 1.0 / self.objectives)
        self.top_k(first, first[0], pi, 1, torch.zeros_like(first), self.all_allowed)

    @torch.inference_mode()
    def top_k(
        self, items: Tensor, lengths: Tensor, pi: Tensor, k: int, excluded: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The k best items per session.

        Args:
            items: int64 [sessions, steps], 1-based indices, 0 after the end of a session.
            lengths: int64 [sessions], clicks per session.
            pi: preferences, float32 [sessions, objectives].
            k: items per list.
            excluded: int64 [sessions, width >= 1], indices that the session's list must not contain, 0 for none.
            allowed: float32 [items] on `device`, 0 for items that lists may contain and -inf for the others.

        Returns:
            Item indices int32 [sessions, k] (1-based) and scores float32 [sessions, k] on the CPU, best first.
        """
        parts = []
        for start in range(0, len(items), self._batch):
            rows = slice(start, start + self._batch)
            batch = [part[rows].to(self.device) for part in (items, lengths, pi)]
            index, scores = self._program(*batch, k, excluded[rows].to(self.device), allowed, self._weights)
            parts.append((index.cpu(), scores.cpu()))
        return torch.cat([index for index, _ in parts]), torch.cat([scores for _, scores in parts])


def _program(path: str, sha256: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The program in a file with this checksum; it contains no weights and no state.

    The last programs are cached: loading one takes seconds, and torch never frees a program that it loaded.
    """
    program = _loaded.get(sha256)
    if program is None:
        program = _loaded[sha256] = torch.export.load(path).module()
        while len(_loaded) > _KEPT_PROGRAMS:
            _loaded.pop(next(iter(_loaded)), None)  # another thread may have removed it already
    return program


@functools.cache
def rounding_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a matrix product in `dtype` is faster than in fp32 on a device, by a measurement of a few milliseconds.

    For int8 on a GPU the answer is always no: int8 products support few shapes there, so a version made for a CPU runs
    in fp32 on a GPU.

    Args:
        device: the device to measure.
        dtype: torch.int8 or torch.bfloat16.
    """
    if dtype == torch.int8 and device.type != "cpu":
        return False
    seconds = []
    for measured in (torch.float32, dtype):
        states, table = (torch.zeros(rows, 256, dtype=measured, device=device) for rows in (64, 8192))
        multiply = torch._int_mm if measured == torch.int8 else torch.mm
        best = float("inf")
        for _ in range(4):
            started = time.perf_counter()
            multiply(states, table.T)[0, 0].item()  # waits until a GPU has finished
            best = min(best, time.perf_counter() - started)
        seconds.append(best)
    return seconds[1] < seconds[0]


def check_files(folder: str) -> dict[str, Any]:
    """Compare every file of a version folder with its checksum.

    Args:
        folder: a version folder, written by `export_version`.

    Returns:
        The manifest.

    Raises:
        OSError: the manifest cannot be read.
        ValueError: a file is missing or differs.
    """
    with open(os.path.join(folder, "manifest.json")) as file:
        manifest = json.load(file)
    for name, expected in manifest["files"].items():
        path = os.path.join(folder, name)
        found = file_sha256(path) if os.path.exists(path) else "no such file"
        if found != expected:
            raise ValueError(f"a file differs from its checksum: {path} ({found}, expected {expected})")
    return manifest


def file_sha256(path: str) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def map_safetensors(path: str) -> dict[str, Tensor]:
    """Memory-map the tensors of a safetensors file.

    The format is the header length (8 bytes, little-endian), a JSON header, then the numbers.

    Args:
        path: the file.

    Returns:
        Tensors by name.

    Raises:
        ValueError: a tensor of an unexpected type.
    """
    raw = torch.from_file(path, shared=False, size=os.path.getsize(path), dtype=torch.uint8)
    length = int.from_bytes(bytes(raw[:8].tolist()), "little")
    header = json.loads(bytes(raw[8 : 8 + length].tolist()))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _TYPES:
            raise ValueError(f"{path}: {name} is {entry['dtype']}, expected one of {sorted(_TYPES)}")
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = raw[begin:end].view(_TYPES[entry["dtype"]]).view(entry["shape"])
    return tensors


def _keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for the next request; does nothing with another C library.

    Each request writes its scores to a new block. Returning the block to the kernel and clearing the next one costs
    more than the matrix product. Threads must share one arena, because the arena of a thread has at most 64 MiB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_ARENA_MAX, 1)
