"""The model that Triton's python backend runs: copied as `model.py` into every version folder.

It needs torch and numpy, not this project: everything that the version is stands in its folder. Requests that arrive
together are answered together where they agree in k, assortment and shape. Tensors cross by
DLPack: the stub of Triton 2.51 was built for numpy 1, and a tensor that it makes from an array of numpy 2 is empty.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import defaultdict
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "manifest.json")) as file:
            self.manifest = json.load(file)
        for name, expected in self.manifest["files"].items():
            with open(os.path.join(folder, name), "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise pb_utils.TritonModelException(f"{folder}/{name} differs from its checksum: {found}")
        threads = int(parameters["threads_per_instance"])
        if threads > 0:
            torch.set_num_threads(threads)
        on_gpu = args["model_instance_kind"] == "GPU"
        self.device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        self.program = torch.export.load(os.path.join(folder, "program.pt2")).module()
        self.weights = {
            name: weight.to(self.device)
            for name, weight in sorted(map_safetensors(os.path.join(folder, "weights.safetensors")).items())
        }
        block = min(self.manifest["block_items"], self.manifest["items"])
        self.sessions_at_once = max(1, (int(parameters["score_memory_mib"]) << 20) // (4 * block))
        self.all_allowed = torch.zeros(self.manifest["items"], device=self.device)
        self.last_assortment: tuple[str | None, Tensor] = (None, self.all_allowed)
        # The first call is slow, and a program that cannot run must fail here, not in front of a client.
        self._run(
            torch.ones(1, 1, dtype=torch.int64),
            torch.ones(1, dtype=torch.int64),
            torch.full((1, self.manifest["objectives"]), 1.0 / self.manifest["objectives"]),
            1,
            torch.zeros(1, 1, dtype=torch.int64),
            self.all_allowed,
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        groups = defaultdict(list)
        for place, request in enumerate(requests):
            try:
                tensors, allowed, key = self._read(request)
            except ValueError as error:
                responses[place] = pb_utils.InferenceResponse(
                    error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                )
            else:
                groups[key].append((place, tensors, allowed))
        for (k, *_), members in groups.items():
            parts = zip(*(tensors for _, tensors, _ in members), strict=True)
            items, lengths, pi, excluded = map(torch.cat, parts)
            index, scores = self._run(items, lengths, pi, k, excluded, members[0][2])
            start = 0
            for place, tensors, _ in members:
                stop = start + len(tensors[0])
                responses[place] = pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor.from_dlpack("item_index", index[start:stop]),
                        pb_utils.Tensor.from_dlpack("score", scores[start:stop]),
                    ]
                )
                start = stop
        return responses

    def _read(self, request: Any) -> tuple[tuple[Tensor, ...], Tensor, tuple[Any, ...]]:
        """The tensors of a request and what it must agree in with others; a ValueError says what is wrong."""

        def tensor(name: str) -> Any:
            value = pb_utils.get_input_tensor_by_name(request, name)
            return None if value is None else torch.from_dlpack(value)

        items, lengths, pi, k, excluded = map(tensor, ("items", "lengths", "pi", "k", "excluded"))
        if excluded is None:
            excluded = torch.zeros(len(items), 1, dtype=torch.int64)
        lengths, k = lengths[:, 0], int(k[0, 0])
        count, longest = self.manifest["items"], self.manifest["max_length"]
        if not 1 <= items.shape[1] <= longest:
            raise ValueError(f"a session has {items.shape[1]} steps; use 1 to {longest}")
        if lengths.min() < 1 or lengths.max() > items.shape[1]:
            raise ValueError(f"lengths must lie in 1 to {items.shape[1]}")
        real = torch.arange(items.shape[1])[None, :] < lengths[:, None]
        if ((items < 1) & real).any() or (items < 0).any() or items.max() > count:
            raise ValueError(f"item indices must lie in 1 to {count}")
        if not 1 <= k <= count:
            raise ValueError(f"k is {k}; use 1 to {count}")
        if pi.shape[1] != self.manifest["objectives"] or not torch.isfinite(pi).all():
            raise ValueError(f"pi must hold {self.manifest['objectives']} finite numbers")
        assortment = json.loads(request.parameters() or "{}").get("assortment")
        key = (k, assortment, items.shape[1], excluded.shape[1])
        return (items, lengths, pi, excluded), self._allowed(assortment), key

    def _allowed(self, assortment: str | None) -> Tensor:
        """0 for each item of an assortment and -inf for the others, float32 [items].

        An assortment is base64 of bits, least significant first, a bit an item; None means all items.
        """
        if assortment is None:
            return self.all_allowed
        # Remembering one is enough: a night has one assortment.
        if assortment == self.last_assortment[0]:
            return self.last_assortment[1]
        count = self.manifest["items"]
        packed = np.frombuffer(base64.b64decode(assortment, validate=True), np.uint8)
        if len(packed) != (count + 7) // 8:
            raise ValueError(f"the assortment must have a bit for each of {count} items")
        mask = torch.from_numpy(np.unpackbits(packed, count=count, bitorder="little").astype(bool)).to(self.device)
        self.last_assortment = (assortment, self.all_allowed.masked_fill(~mask, float("-inf")))
        return self.last_assortment[1]

    @torch.inference_mode()
    def _run(
        self, items: Tensor, lengths: Tensor, pi: Tensor, k: int, excluded: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Item indices and scores, on the CPU."""
        parts = []
        for start in range(0, len(items), self.sessions_at_once):
            rows = slice(start, start + self.sessions_at_once)
            given = (part[rows].to(self.device) for part in (items, lengths, pi))
            index, scores = self.program(*given, k, excluded[rows].to(self.device), allowed, self.weights)
            parts.append((index.cpu(), scores.cpu()))
        return torch.cat([index for index, _ in parts]), torch.cat([scores for _, scores in parts])


def map_safetensors(path: str) -> dict[str, Tensor]:
    """The float32 tensors of a safetensors file, mapped into memory and shared by all processes that map it."""
    raw = torch.from_file(path, shared=False, size=os.path.getsize(path), dtype=torch.uint8)
    length = int.from_bytes(bytes(raw[:8].tolist()), "little")
    header = json.loads(bytes(raw[8 : 8 + length].tolist()))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise pb_utils.TritonModelException(f"{path}: {name} is {entry['dtype']}, expected F32")
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = raw[begin:end].view(torch.float32).view(entry["shape"])
    return tensors
