"""Open and run the exported programs of a version folder with torch alone.

This file is copied into every version folder beside `model.py`; it must not import this project. The weights are
mapped into memory, so that the instances of a server share one copy, as do a version and the one that replaces it.
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
    """The program of a version that is faster here.

    Args:
        folder: a version folder, written by `export_version`.
        device: where it runs.
        score_memory_mib: bound of the scores that are held at a time.

    Raises:
        ValueError: a file differs from its checksum or is not what it should be.
    """

    def __init__(self, folder: str, *, device: str = "cpu", score_memory_mib: int = 256) -> None:
        _keep_freed_memory()
        self.manifest = check_files(folder)
        self.device = torch.device(device)
        self.items: int = self.manifest["items"]
        self.max_length: int = self.manifest["max_length"]
        self.objectives: int = self.manifest["objectives"]
        self._at_once = max(1, (score_memory_mib << 20) // (4 * min(self.manifest["block_items"], self.items)))
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
        # The first call is slow, and a program that cannot run must fail here, not in front of a client.
        first = torch.ones(1, 1, dtype=torch.int64)
        pi = torch.full((1, self.objectives), 1.0 / self.objectives)
        self.top_k(first, first[0], pi, 1, torch.zeros_like(first), self.all_allowed)

    @torch.inference_mode()
    def top_k(
        self, items: Tensor, lengths: Tensor, pi: Tensor, k: int, excluded: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Item indices int32 [sessions, k] and scores float32 [sessions, k] on the CPU, best first.

        Args:
            items: int64 [sessions, steps], 1-based indices, 0 behind a session's end.
            lengths: int64 [sessions].
            pi: float32 [sessions, objectives].
            k: items a list.
            excluded: int64 [sessions, width >= 1], indices that a session's list must not hold, 0 for none.
            allowed: float32 [items] on `device`, 0 or -inf.
        """
        parts = []
        for start in range(0, len(items), self._at_once):
            rows = slice(start, start + self._at_once)
            clicks, ends, preferences, barred = (part[rows].to(self.device) for part in (items, lengths, pi, excluded))
            index, scores = self._program(clicks, ends, preferences, k, barred, allowed, self._weights)
            parts.append((index.cpu(), scores.cpu()))
        return torch.cat([index for index, _ in parts]), torch.cat([scores for _, scores in parts])


def _program(path: str, sha256: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The program of a file that has this checksum; it holds no weights and no state.

    The last few are kept: to load one takes seconds, and torch does not forget any program that it ever loaded.
    """
    program = _loaded.get(sha256)
    if program is None:
        program = _loaded[sha256] = torch.export.load(path).module()
        while len(_loaded) > _KEPT_PROGRAMS:
            _loaded.pop(next(iter(_loaded)), None)  # another thread may have been quicker
    return program


@functools.cache
def rounding_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a matrix product in `dtype` is faster than in fp32 here: measured, a few milliseconds.

    Int8 is for CPUs: on a GPU it knows few shapes, and a version that was made for a CPU runs there in fp32.
    """
    if dtype == torch.int8 and device.type != "cpu":
        return False
    seconds = []
    for each in (torch.float32, dtype):
        states, table = (torch.zeros(rows, 256, dtype=each, device=device) for rows in (64, 8192))
        multiply = torch._int_mm if each == torch.int8 else torch.mm
        best = float("inf")
        for _ in range(4):
            begun = time.perf_counter()
            multiply(states, table.T)[0, 0].item()  # waits for a GPU
            best = min(best, time.perf_counter() - begun)
        seconds.append(best)
    return seconds[1] < seconds[0]


def check_files(folder: str) -> dict[str, Any]:
    """The manifest of a version folder, after comparing every file with its checksum.

    Raises:
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
    """The tensors of a safetensors file, mapped into memory: a length, a JSON header of that length, the numbers.

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
    """Tell glibc to keep large freed blocks: returning them to the kernel and clearing them again costs more than the
    matrix product that writes a new one on every call. Threads must share one arena for that: those of their own hold
    64 MiB at most. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_ARENA_MAX, 1)
