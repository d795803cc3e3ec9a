"""Compare batch scoring with a simple loop, on the same model and the same sessions.

    python benchmarks/scoring.py                       # 43 thousand items
    python benchmarks/scoring.py --items 1800000 --sessions 2000 --json scoring.json

(a) a simple loop: sessions padded to 50, states of all steps in fp32, `torch.topk` over the whole catalogue;
(b) the scoring program in this process; (c) the same through a separate Triton server; (d) through Triton and into a
Delta table; (e) as (b) with an assortment of half the catalogue; (f) as (b) with the clicked items excluded. (b) to (f)
call `score_sessions`, which decodes item ids and makes the rows of the table; (a) does not. With `--device cuda` (a),
(b), (e) and (f) run on a GPU, in one process, with the program that is exported for GPUs.

The weights are random. Session lengths follow Diginetica's (geometric, mean 4.8 clicks), and all sessions differ, so
scoring equal sequences only once saves nothing. The first run of `score_sessions` deploys the model, later ones use the
deployed model. Each measurement runs in its own process. It reports the seconds of one pass after a short warm-up, the
processor seconds of all its processes, and the peak memory (for c and d with the server's). The rates of matrix
multiplication on this machine are measured in fp32, bfloat16 and int8. The last column is the share of the fp32 rate
that the multiplications of (a) or (b), counted without padding, reach.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "a": "padded loop",
    "b": "in process",
    "c": "Triton",
    "d": "Triton and Delta",
    "e": "in process, assortment",
    "f": "in process, clicked excluded",
}
K = 20
PI = "0.50"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=43_000)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--loop-sessions", type=int, help="sessions of (a); by default a tenth, because it is slow")
    parser.add_argument(
        "--repeats", type=int, default=1, help="rounds over all ways; prints medians, and the largest peak memory"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--ways", default="abcdef", help="letters of the ways to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="half a minute: 2,000 items, 1,000 sessions")
    parser.add_argument("--profile", action="store_true", help="profile the parts of a request instead")
    options = parser.parse_args()
    if options.small:
        options.items, options.sessions, options.loop_sessions = 2_000, 1_000, 300
    if options.device != "cpu":
        options.ways = "".join(way for way in options.ways if way not in "cd")
    if options.child:
        print(json.dumps(_measure(options.child[0], Path(options.child[1]), options)))
        return
    if options.profile:
        _profile(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_random_shop(Path(folder), items=options.items, sessions=options.sessions)
        rounds = [{way: _child(way, folder) for way in options.ways} for _ in range(options.repeats)]
    medians = {
        way: {
            name: (max if name == "peak_mb" else statistics.median)(each[way][name] for each in rounds)
            for name in rounds[0][way]
        }
        for way in options.ways
    }
    rates = _matrix_rates(options.threads, options.device)
    reached = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    where = f"{options.threads} threads" if options.device == "cpu" else options.device
    print(f"{options.items} items, {where}; matrix products, 10^9 operations per second: {reached}")
    print(f"{'':34}{'sessions/s':>12}{'of (a)':>8}{'per CPU s':>12}{'of (a)':>8}{'peak MB':>10}{'of fp32 rate':>14}")
    for way, found in medians.items():
        wall, cpu = found["sessions_per_second"], found["sessions_per_cpu_second"]
        base = medians.get("a", found)
        share = wall * found["flop_per_session"] / 1e9 / rates["fp32"]
        print(
            f"({way}) {WAYS[way]:30}{wall:12.0f}{wall / base['sessions_per_second']:8.2f}{cpu:12.0f}"
            f"{cpu / base['sessions_per_cpu_second']:8.2f}{found['peak_mb']:10.0f}{share:14.0%}"
        )
    if options.json:
        options.json.write_text(
            json.dumps({"options": vars(options) | {"json": None}, "rates": rates, "ways": medians, "rounds": rounds})
        )


def _child(way: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", way, folder]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_random_shop(folder: Path, *, items: int, sessions: int) -> None:
    """Write a model folder `model` with random weights, and `sessions` with lengths as in Diginetica."""
    import polars as pl

    from multitron_core.model.config import ModelConfig
    from multitron_core.model.folder import write_untrained_model
    from multitron_core.sessions.encoded import EncodedSessions
    from multitron_core.sessions.vocabulary import Vocabulary

    vocabulary = Vocabulary(pl.Series(np.arange(items, dtype=np.int64) * 7 + 3))
    write_untrained_model(folder / "model", ModelConfig(items=items), vocabulary)
    generator = np.random.default_rng(0)
    lengths = generator.geometric(1 / 4.8, sessions)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    clicks = generator.integers(1, items + 1, offsets[-1], dtype=np.int32)
    ids = pl.Series([f"{number:09}" for number in range(sessions)])
    EncodedSessions(ids, offsets, clicks, np.zeros(len(clicks), bool), vocabulary.hash).save(folder / "sessions")


def _measure(way: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in this process."""
    import torch

    from multitron_core.sessions.encoded import EncodedSessions
    from multitron_core.sessions.vocabulary import Vocabulary

    torch.set_num_threads(options.threads)
    sessions = EncodedSessions.load(folder / "sessions")
    vocabulary = Vocabulary.load(folder / "model" / "vocabulary.parquet")
    count = (options.loop_sessions or options.sessions // 10) if way == "a" else options.sessions
    chosen = sessions.select(np.arange(count))
    first = sessions.select(np.arange(min(512, count)))
    if way == "a":
        seconds, cpu, peak = _loop(folder, first, chosen, options.device)
    else:
        seconds, cpu, peak = _ours(way, folder, first, chosen, vocabulary, options)
    d, steps = 200, float(np.minimum(chosen.lengths, 50).mean())
    flop = 2 * d * options.items + steps * (2 * d * d + 3 * 12 * d * d)
    return {
        "sessions_per_second": count / seconds,
        "sessions_per_cpu_second": count / cpu,
        "peak_mb": peak / 1e6,
        "flop_per_session": flop,
    }


def _loop(folder: Path, first: Any, chosen: Any, device: str) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory (bytes) of the simple loop over `chosen`, after one over `first`."""
    import torch

    from multitron_core.model.folder import load_model
    from multitron_core.preference.keys import pi_vector

    model = load_model(folder / "model", device)
    pi = torch.tensor(pi_vector(PI), device=device)

    @torch.inference_mode()
    def score(part: Any) -> None:
        for start in range(0, len(part), 256):
            stop = min(start + 256, len(part))
            items = torch.zeros(stop - start, 50, dtype=torch.int64)
            for row in range(start, stop):
                clicks = part.items[part.offsets[row] : part.offsets[row + 1]][-50:]
                items[row - start, : len(clicks)] = torch.from_numpy(np.asarray(clicks, np.int64))
            items = items.to(device)
            lengths = (items > 0).sum(dim=1)
            states = model(items, lengths, pi)
            model.scores(states[torch.arange(len(items)), lengths - 1]).topk(K).indices.cpu()

    score(first)
    wall, cpu = time.perf_counter(), time.process_time()
    score(chosen)
    return time.perf_counter() - wall, time.process_time() - cpu, _peak(os.getpid())


def _ours(
    way: str, folder: Path, first: Any, chosen: Any, vocabulary: Any, options: argparse.Namespace
) -> tuple[float, float, float]:
    from serving.deployment import deploy
    from serving.in_process import InProcessServer
    from serving.repository import InstanceSettings, ModelRepository
    from serving.scorer import score_sessions
    from serving.server import TritonServer

    extra: dict[str, Any] = {}
    if way == "e":
        extra["assortment"] = vocabulary.item_ids.gather_every(2)
    if way == "f":
        extra["exclude_clicked"] = True
    through_triton = way in "cd"
    repository = folder / "repository"
    server: Any = TritonServer(repository) if through_triton else InProcessServer(repository, device=options.device)
    with server:
        if ModelRepository(server.repository).read_config() is None:
            settings = InstanceSettings(threads_per_instance=options.threads, on_gpu=options.device != "cpu")
            deploy(folder / "model", server, golden_pi=[PI], settings=settings)

        def score(part: Any) -> None:
            frames = score_sessions(
                part,
                PI,
                K,
                scorer=server.scorer(),
                vocabulary=vocabulary,
                in_flight=4 if through_triton else 1,
                **extra,
            )
            if way == "d":
                _write(frames, folder, part, vocabulary)
            else:
                assert sum(len(frame) for frame in frames) == K * len(part)

        score(first)
        if through_triton:
            while len(_descendants(server.process_id)) > 2:  # until the instance that the promotion replaced has ended
                time.sleep(0.2)
        pids = [os.getpid(), *_descendants(server.process_id)] if through_triton else [os.getpid()]
        wall, cpu = time.perf_counter(), sum(map(_cpu, pids))
        score(chosen)
        wall, cpu = time.perf_counter() - wall, sum(map(_cpu, pids)) - cpu
        return wall, cpu, sum(map(_peak, pids))


def _profile(options: argparse.Namespace) -> None:
    """Print processor microseconds per session of each part of a request, and of the loop: 256 sessions of 5 clicks."""
    import torch
    import torch.nn.functional as F

    from multitron_core.model.config import ModelConfig
    from multitron_core.model.transformer import MultiTRON
    from serving.scoring_program import ScoringProgram, Screen

    torch.set_num_threads(1)
    model = MultiTRON(ModelConfig(items=options.items)).eval()
    table = model.item_embedding.weight.detach()[1:]
    program = ScoringProgram(model, screen=Screen.of(table)).eval()
    items, lengths, pi = torch.randint(1, options.items, (256, 5)), torch.full((256,), 5), torch.full((256, 2), 0.5)
    padded, none, every = F.pad(items, (0, 45)), torch.zeros(256, 1, dtype=torch.int64), torch.zeros(options.items)
    with torch.inference_mode():
        states = model.last_states(items, lengths, pi)
        scores, rounded = model.scores(states), states.to(torch.int8)
        parts = {
            "loop: states of 50 steps": lambda: model(padded, lengths, pi),
            "loop: product in fp32": lambda: model.scores(states),
            "loop: topk": lambda: scores.topk(K),
            "program: states": lambda: model.last_states(items, lengths, pi),
            "program: product in int8": lambda: torch._int_mm(rounded, program.screen_table.T),
            "program: whole request": lambda: program(items, lengths, pi, K, none, every),
        }
        for name, part in parts.items():
            seconds = []
            for _ in range(5):
                begun = time.process_time()
                part()
                seconds.append(time.process_time() - begun)
            print(f"{name:34}{min(seconds) * 1e6 / 256:8.1f}")


def _write(frames: Any, folder: Path, part: Any, vocabulary: Any) -> None:
    import datetime as dt

    from multitron_core.lake.lake import Lake

    lake = Lake(folder / "lake")
    lake.create(vocabulary.item_ids.dtype)
    lake.replace_partition(
        dt.date(2024, 1, 1), PI, frames, model_version="benchmark", k=K, items=vocabulary, expected_lists=len(part)
    )


def _descendants(pid: int) -> list[int]:
    """Process ids of a process and its descendants, from /proc."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _descendants(int(child)))]


def _cpu(pid: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    """Peak resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


def _matrix_rates(threads: int, device: str) -> dict[str, float]:
    """10^9 operations per second of square matrix products, with 1024 rows on a CPU and 8192 on a GPU."""
    import torch

    torch.set_num_threads(threads)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bfloat16", torch.bfloat16), ("int8", torch.int8)):
        size = 1024 if device == "cpu" else 8192
        matrix = torch.randn(size, size).to(device, dtype)
        multiply = torch._int_mm if dtype == torch.int8 else torch.mm
        seconds = []
        for _ in range(12):
            begun = time.perf_counter()
            multiply(matrix, matrix)[0, 0].item()  # waits for a GPU
            seconds.append(time.perf_counter() - begun)
        rates[name] = 2 * size**3 / min(seconds) / 1e9
    return rates


if __name__ == "__main__":
    main()
