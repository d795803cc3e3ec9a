"""Compare scoring answers over gRPC with answers through system shared memory, for the same requests.

    python benchmarks/shared_memory.py

The model has one layer and 256 items, so nearly all of the time is transport. Lists have 200 items, the largest length
that scoring supports, and 20, the usual one. Prints the saved time in microseconds per session; compare it with the
time per session of `benchmarks/scoring.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shared_memory

from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import write_untrained_model
from multitron_core.sessions.vocabulary import Vocabulary
from serving.deployment import deploy
from serving.interface import ScoringRequest
from serving.server import TritonServer
from serving.triton_scorer import request_tensors

SESSIONS, STEPS, ITEMS = 256, 5, 256
REGION = "multitron_benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--small", action="store_true", help="20 repeats")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, TritonServer(Path(folder) / "repository") as server:
        deploy(_model(Path(folder) / "model"), server, golden_pi=["0.50"])
        found = {k: _compare(server, k, 20 if options.small else options.repeats) for k in (20, 200)}
    print(f"{'k':>4}{'gRPC, us/session':>22}{'shared memory':>16}{'saved':>8}")
    for k, (over_grpc, shared) in found.items():
        print(f"{k:4}{over_grpc:22.2f}{shared:16.2f}{over_grpc - shared:8.2f}")
    if options.json:
        options.json.write_text(json.dumps(found))


def _model(folder: Path) -> Path:
    config = ModelConfig(items=ITEMS, dimension=8, layers=1, max_length=STEPS)
    vocabulary = Vocabulary(pl.Series(range(ITEMS), dtype=pl.Int64))
    return write_untrained_model(folder, config, vocabulary)


def _compare(server: TritonServer, k: int, repeats: int) -> tuple[float, float]:
    """Median microseconds per session, over gRPC and with the answer in shared memory; requests alternate."""
    generator = np.random.default_rng(0)
    items = generator.integers(1, ITEMS + 1, (SESSIONS, STEPS))
    pi = np.full((SESSIONS, 2), 0.5, np.float32)
    request = ScoringRequest(items, np.full(SESSIONS, STEPS), pi, k)
    scorer, live, client = server.scorer(), server.live_model(), server.client()
    size = SESSIONS * k * 4
    region = shared_memory.create_shared_memory_region(REGION, f"/{REGION}", 2 * size)
    client.register_system_shared_memory(REGION, f"/{REGION}", 2 * size)
    try:
        outputs = []
        for name, offset in (("item_index", 0), ("score", size)):
            output = triton.InferRequestedOutput(name)
            output.set_shared_memory(REGION, size, offset)
            outputs.append(output)

        def through_memory() -> tuple[np.ndarray, np.ndarray]:
            tensors = []
            for name, array in request_tensors(request, live)[0].items():
                tensor = triton.InferInput(name, list(array.shape), triton_type(array))
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            client.infer(live.model_name, tensors, model_version=str(live.version), outputs=outputs)
            index = shared_memory.get_contents_as_numpy(region, np.int32, [SESSIONS, k], 0)
            return index.copy(), shared_memory.get_contents_as_numpy(region, np.float32, [SESSIONS, k], size).copy()

        assert (through_memory()[0] == scorer.top_k(request, live)[0]).all()
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            seconds[0].append(_seconds(lambda: scorer.top_k(request, live)))
            seconds[1].append(_seconds(through_memory))
    finally:
        client.unregister_system_shared_memory(REGION)
        shared_memory.destroy_shared_memory_region(region)
    over_grpc, shared = (statistics.median(each) * 1e6 / SESSIONS for each in seconds)
    return over_grpc, shared


def triton_type(array: np.ndarray) -> str:
    return {"int64": "INT64", "int32": "INT32", "float32": "FP32"}[array.dtype.name]


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
