"""The model that Triton's python backend runs. It is copied to `model.py` in every version folder.

It needs torch and `version_program.py` in the same folder, and must not import this project. Requests of a batch with
equal k, assortment and shape are scored together. Tensors are exchanged by DLPack, because the stub of Triton 2.51 was
built for numpy 1: a tensor that it makes from a numpy 2 array is empty.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
from collections import defaultdict
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor

FOLDER = os.path.dirname(os.path.abspath(__file__))


class TritonPythonModel:
    """One instance of one version. Triton calls its methods, whose names and arguments Triton defines."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the program of the version.

        Args:
            args: model configuration as JSON, repository, version and device, by Triton's names.
        """
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        threads = int(parameters["threads_per_instance"])
        if threads > 0:
            torch.set_num_threads(threads)
        sys.path.insert(0, FOLDER)
        self.program = importlib.import_module("version_program").VersionProgram(
            os.path.join(args["model_repository"], args["model_version"]),
            device=f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu",
            score_memory_mib=int(parameters["score_memory_mib"]),
        )
        self.last_assortment: tuple[str | None, Tensor] = (None, self.program.all_allowed)
        pb_utils.Logger.log_info(
            f"{args['model_name']} version {args['model_version']} scores with the program {self.program.chosen} on "
            f"{torch.get_num_threads()} threads"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests.

        Args:
            requests: Triton's request objects.

        Returns:
            One response per request, in their order; an invalid request gets an error response.
        """
        responses: list[Any] = [None] * len(requests)
        groups = defaultdict(list)
        for number, request in enumerate(requests):
            try:
                tensors, allowed, key = self._read(request)
            except ValueError as error:
                responses[number] = pb_utils.InferenceResponse(
                    error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                )
            else:
                groups[key].append((number, tensors, allowed))
        for (k, *_), members in groups.items():
            parts = zip(*(tensors for _, tensors, _ in members), strict=True)
            items, lengths, pi, excluded = map(torch.cat, parts)
            index, scores = self.program.top_k(items, lengths, pi, k, excluded, members[0][2])
            start = 0
            for number, tensors, _ in members:
                stop = start + len(tensors[0])
                responses[number] = pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor.from_dlpack("item_index", index[start:stop]),
                        pb_utils.Tensor.from_dlpack("score", scores[start:stop]),
                    ]
                )
                start = stop
        return responses

    def _read(self, request: Any) -> tuple[tuple[Tensor, ...], Tensor, tuple[Any, ...]]:
        """Read and check a request.

        Returns:
            The tensors items, lengths, pi and excluded; the allowed items; and the key that requests scored together
            share.

        Raises:
            ValueError: the request is invalid.
        """

        def tensor(name: str) -> Any:
            value = pb_utils.get_input_tensor_by_name(request, name)
            return None if value is None else torch.from_dlpack(value)

        items, lengths, pi, k, excluded = map(tensor, ("items", "lengths", "pi", "k", "excluded"))
        if excluded is None:
            excluded = torch.zeros(len(items), 1, dtype=torch.int64)
        lengths, k = lengths[:, 0], int(k[0, 0])
        count, longest = self.program.items, self.program.max_length
        if not 1 <= items.shape[1] <= longest:
            raise ValueError(f"a session has {items.shape[1]} steps; use 1 to {longest}")
        if lengths.min() < 1 or lengths.max() > items.shape[1]:
            raise ValueError(f"lengths must lie in 1 to {items.shape[1]}")
        real = torch.arange(items.shape[1])[None, :] < lengths[:, None]
        if ((items < 1) & real).any() or (items < 0).any() or items.max() > count:
            raise ValueError(f"item indices must lie in 1 to {count}")
        if not 1 <= k <= count:
            raise ValueError(f"k is {k}; use 1 to {count}")
        if not torch.isfinite(pi).all():
            raise ValueError("pi must hold finite numbers")
        assortment = json.loads(request.parameters() or "{}").get("assortment")
        key = (k, assortment, items.shape[1], excluded.shape[1])
        return (items, lengths, pi, excluded), self._allowed(assortment), key

    def _allowed(self, assortment: str | None) -> Tensor:
        """The allowed items, float32 [items]: 0 for items of the assortment and -inf for the others.

        Args:
            assortment: base64 of one bit per item, least significant bit first; None allows all items.

        Raises:
            ValueError: it is not base64, or has another number of bits.
        """
        if assortment is None:
            return self.program.all_allowed
        # Caching one is enough: a scoring run has one assortment.
        if assortment != self.last_assortment[0]:
            count = self.program.items
            packed = torch.frombuffer(bytearray(base64.b64decode(assortment, validate=True)), dtype=torch.uint8)
            if len(packed) != (count + 7) // 8:
                raise ValueError(f"the assortment must have one bit for each of {count} items")
            bits = (packed[:, None] >> torch.arange(8)) & 1  # (bytes, 8)
            excluded = (bits.flatten()[:count] == 0).to(self.program.device)
            self.last_assortment = (assortment, self.program.all_allowed.masked_fill(excluded, float("-inf")))
        return self.last_assortment[1]
