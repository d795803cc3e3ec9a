"""Time one training step, optionally against the authors' code on the same data, batch size and negatives.

    python benchmarks/training.py                                            # this project only
    python benchmarks/training.py --official <checkout of otto-de/MultiTRON> --threads 1 2 --json training.json

The authors' code needs pytorch_lightning in the same Python environment. Data: Diginetica at full size from
`$MULTITRON_DATA/diginetica-full` (default `../shared/data` next to the checkout); otherwise a simulated shop of 42
thousand items with sessions of the same lengths.

Sizes: 256 sessions per batch, 16,384 uniform and 32 in-batch negatives, the 100 hardest kept, 200 dimensions, 3 layers.
Each measurement runs in its own process. Printed are medians of seconds and processor seconds per step, including the
time to make the batch, and without it; sessions/s by wall clock and the time of an epoch at that rate; peak memory (of
the GPU on a GPU). For this project also: seconds per step while a thread makes the batches, as in training (the
authors' trainer uses processes for that); the phases of a step; and the share of a step that its matrix multiplications
would take at the rate that this machine reaches in their dtype. Losses of this project are float32 in the row float32.
The hardest negatives are searched as in the presets (`negative_search = "auto"`), with the same result. The search
computes logits again that it cannot distinguish, so a step of a trained model takes another time than the first steps:
`--after 700` measures after 700 steps, `--preset official` the paper's recipe. Compare processor seconds on a machine
with other load.

    python benchmarks/training.py --catalogue 42000 500000 1800000

measures one optimiser step instead, dense and lazy, for item embeddings of these sizes of which a step changes 18
thousand rows, and the memory of weights, gradient and moments.

The file is long because it runs and profiles both implementations, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from multitron_core.events.read import read_events
from multitron_core.losses import hard_negatives
from multitron_core.sessions.prepare import PreparedSessions, prepare_sessions
from multitron_core.training import presets, step, trainer
from multitron_core.training.devices import uses_bfloat16
from multitron_core.training.optimiser import Adam
from multitron_core.training.step_inputs import StepInputs, to_device
from multitron_core.utils.prefetch import prefetch

ROOT = Path(__file__).resolve().parents[1]
BATCH = 256
WARMUP = 3
RATIOS = {
    "by the wall clock": ("seconds", "seconds"),
    "by processor seconds": ("processor_seconds", "processor_seconds"),
    "with our batches prefetched": ("seconds", "seconds_ahead"),
    "with our batches prefetched and theirs for free": ("seconds_behind_the_batch", "seconds_ahead"),
}
"""Compared times: a time of the authors' code divided by one of this project."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the authors' code")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--steps", type=int, default=20, help="measured steps; a quarter of them for the authors' code")
    parser.add_argument("--after", type=int, default=WARMUP, help="steps before the measured ones, this project only")
    parser.add_argument("--preset", default="diginetica", help="preset of this project; the sizes stay the paper's")
    parser.add_argument("--compile", action="store_true", help="compile the part of each layer after the attention")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument(
        "--catalogue",
        type=int,
        nargs="+",
        metavar="ITEMS",
        help="measure the optimisers instead, with these numbers of items",
    )
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "PRECISION", "THREADS", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="half a minute: 3 steps")
    options = parser.parse_args()
    if options.small:
        options.steps = 3
    if options.child:
        side, precision, threads, folder = options.child
        torch.set_num_threads(int(threads))
        measure = _ours if side == "ours" else _official
        print(json.dumps(measure(Path(folder), precision, options)))
        return
    if options.catalogue:
        torch.set_num_threads(options.threads[0])
        rows = [_optimiser(items, lazy, options.device) for items in options.catalogue for lazy in (False, True)]
        if options.json:
            options.json.write_text(json.dumps({"device": _device_name(options.device), "rows": rows}, indent=2) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        data = _data()
        data.save(Path(folder) / "prepared")
        rows = []
        for threads in options.threads:
            for side in ["ours"] + ["official"] * (options.official is not None):
                for precision in ("float32", "bfloat16"):
                    rows.append(_in_a_process(side, precision, threads, folder))
                    print(_line(rows[-1], len(data.train)), flush=True)
    ours = [row for row in rows if row["side"] == "ours"]
    _print_phases(ours)
    if options.official:
        _print_ratios(rows)
    if options.json:
        options.json.write_text(json.dumps({"device": _device_name(options.device), "rows": rows}, indent=2) + "\n")


def _data() -> PreparedSessions:
    source = Path(os.environ.get("MULTITRON_DATA") or ROOT.parent / "shared" / "data") / "diginetica-full"
    if source.is_dir():
        print(f"data: {source}")
        return prepare_sessions(read_events(source, "diginetica"), "diginetica")
    from multitron_core.simulator.simulation import simulate

    print(f"data: simulated ({source} does not exist)")
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "raw", sessions=60_000, items=42_000)
        return prepare_sessions(read_events(Path(folder) / "raw", "table"), min_item_clicks=1)


def _in_a_process(side: str, precision: str, threads: int, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", side, precision, str(threads), folder]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return {"side": side, "precision": precision, "threads": threads, **row}


def _timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall seconds, and processor seconds of all threads."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began, processor = time.perf_counter(), time.process_time()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - processor


def _summary(making: list[tuple[float, float]], stepping: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of making the batch and of the step after it, and peak memory, on a GPU that of the GPU."""
    both = [(made[0] + took[0], made[1] + took[1]) for made, took in zip(making, stepping, strict=True)]
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return {
        "seconds": statistics.median(wall for wall, _ in both),
        "processor_seconds": statistics.median(processor for _, processor in both),
        "seconds_behind_the_batch": statistics.median(wall for wall, _ in stepping),
        "peak_memory_mib": gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _ours(folder: Path, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    data = PreparedSessions.load(folder / "prepared")
    same_work = {"uniform_negatives": 16_384, "in_batch_negatives": 32, "kept_negatives": 100}  # the paper's sizes
    config = presets.named(
        options.preset, training={"precision": precision, "cuda_graphs": options.device == "cuda", **same_work}
    )
    run = trainer.Trainer(data, config, "benchmark", folder / "none", torch.device(options.device))
    batches = chain.from_iterable(run.batches(epoch, 0) for epoch in count())
    for layer in run.model.layers if options.compile else ():
        layer.rest = torch.compile(layer.rest, dynamic=True)

    made: list[StepInputs] = []

    def make() -> None:
        made[:] = [next(batches)]

    def take() -> None:
        run.step(to_device(made[0], run.device))

    def one() -> None:
        make()
        take()

    for _ in range(options.after):
        one()
    times = [(_timed(make), _timed(take)) for _ in range(options.steps)]
    found: dict[str, Any] = _summary(*map(list, zip(*times, strict=True)))  # before the profile, which uses memory
    found["seconds_ahead"] = _ahead(run, batches, 3 * options.steps)
    if options.device == "cuda":
        autocast = uses_bfloat16(precision, run.device)
        # Kernel after kernel, without graphs, also for the phases below.
        run.gradients = partial(step.step_gradients, run.model, losses=run.losses, autocast=autocast)
        one()
        found["seconds_without_graphs"] = statistics.median(_timed(take)[0] for _ in range(options.steps))
        found |= _kernels(take)
    return found | {"products": _products(run, one, precision), "phases": _phases(run, batches, options.steps)}


def _ahead(run: trainer.Trainer, batches: Iterator[StepInputs], steps: int) -> float:
    """Seconds per step while a thread makes the batches, as in training."""
    with closing(prefetch(islice(batches, steps))) as made:

        def all_steps() -> None:
            for inputs in made:
                run.step(to_device(inputs, run.device))

        return _timed(all_steps)[0] / steps


def _kernels(one: Callable[[], None]) -> dict[str, float]:
    """Number of kernels that one step launches on a GPU, and the GPU seconds they take."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        one()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {"kernels": len(events), "kernel_seconds": sum(event.device_time for event in events) / 1e6}


def _products(run: trainer.Trainer, one: Callable[[], None], precision: str) -> list[dict[str, Any]]:
    """GFLOP of a step's matrix products, in the search and elsewhere, and the rate of large products in their dtype."""
    every, search, found = FlopCounterMode(display=False), FlopCounterMode(display=False), hard_negatives.search_columns

    def counted(*arguments: Any) -> Any:
        with search:
            return found(*arguments)

    hard_negatives.search_columns = counted
    try:
        with every:
            one()
    finally:
        hard_negatives.search_columns = found
    of_search, of_all = search.get_total_flops() / 1e9, every.get_total_flops() / 1e9
    kinds = [(str(run.losses.search).removeprefix("torch."), of_search), (precision, of_all - of_search)]
    return [{"dtype": kind, "gigaflop": flop, "rate": _matmul_rate(kind, run.device)} for kind, flop in kinds]


def _phases(run: trainer.Trainer, batches: Iterator[StepInputs], steps: int) -> dict[str, float]:
    """Seconds per step of each phase: processor seconds on a CPU, wall seconds on a GPU."""
    clock = 1 if run.device.type == "cpu" else 0
    spent: dict[str, float] = {}

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            found = []
            seconds = _timed(lambda: found.append(function(*arguments, **options)))[clock]
            spent[name] = spent.get(name, 0.0) + seconds
            return found[0]

        return call

    places: list[tuple[Any, str, str]] = [
        (step, "packed_states", "layers forward"),
        (hard_negatives, "search_columns", "search of the negatives"),
        (torch.autograd, "grad", "backward"),
        (Adam, "step", "optimiser"),
    ]
    kept = [getattr(owner, attribute) for owner, attribute, _ in places]
    for owner, attribute, name in places:
        setattr(owner, attribute, watched(name, getattr(owner, attribute)))
    try:
        make, take = watched("making the batch", lambda: next(batches)), watched("step", run.step)
        for _ in range(steps):
            take(to_device(make(), run.device))
    finally:
        for (owner, attribute, _), function in zip(places, kept, strict=True):
            setattr(owner, attribute, function)
    spent["the rest"] = 2 * spent["step"] + spent["making the batch"] - sum(spent.values())
    del spent["step"]
    return {name: seconds / steps for name, seconds in spent.items()}


def _matmul_rate(dtype: str, device: torch.device) -> float:
    """GFLOP per processor second (per second on a GPU) of a large square matrix product."""
    size, clock = (2048, 1) if device.type == "cpu" else (8192, 0)
    a, b = torch.randn(2, size, size, device=device, dtype=getattr(torch, dtype))
    return max(2 * size**3 / _timed(lambda: a @ b)[clock] for _ in range(6)) / 1e9


def _official(folder: Path, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time the authors' data set, collation, model and loss as in their trainer, without loader processes."""
    sys.path.insert(0, str(options.official))
    from src.dataset import MultiTronDataset  # type: ignore[import-not-found]
    from src.model import MultiTron  # type: ignore[import-not-found]

    data = PreparedSessions.load(folder / "prepared")
    steps = WARMUP + max(options.steps // 4, 3)
    lines = folder / "official.jsonl"
    _write_official(data, lines, sessions=steps * BATCH)
    items = len(data.vocabulary)
    source = MultiTronDataset(
        str(lines),
        steps * BATCH,
        num_items=items,
        max_seqlen=50,
        num_uniform_negatives=16_384,
        num_in_batch_negatives=32,
        sampling_style="batchwise",
        shuffling_style="no_shuffling",
    )
    model = MultiTron(200, 0.05, 50, items, BATCH, "batchwise", True, 100, learning_rate=1e-4, num_layers=3)
    model.log = lambda *arguments, **settings: None  # without a trainer there is no logger
    model.to(options.device)
    optimiser = model.configure_optimizers()
    numbers = iter(range(steps))
    made: dict[str, Any] = {}

    def make() -> None:
        first = next(numbers) * BATCH
        made.update(source.dynamic_collate([source[first + i] for i in range(BATCH)]))

    def take() -> None:
        batch = {name: tensor.to(options.device) for name, tensor in made.items()}
        with torch.autocast(options.device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    for _ in range(WARMUP):
        make()
        take()
    times = [(_timed(make), _timed(take)) for _ in range(steps - WARMUP)]
    return _summary(*map(list, zip(*times, strict=True)))


def _write_official(data: PreparedSessions, path: Path, sessions: int) -> None:
    """Write random sessions in the authors' format, orders last; the first days have shorter sessions than the rest."""
    rows = np.random.default_rng(1).permutation(np.flatnonzero(data.train.lengths >= 2))[:sessions]
    frame = data.train.select(rows).to_frame()
    with open(path, "w") as file:
        for session, items, ordered in frame.iter_rows():
            events = [{"aid": item, "ts": ts, "type": "clicks"} for ts, item in enumerate(items)]
            bought = dict.fromkeys(item for item, order in zip(items, ordered, strict=True) if order)
            events += [{"aid": item, "ts": len(items), "type": "orders"} for item in bought]
            file.write(json.dumps({"session": session, "events": events}) + "\n")


def _optimiser(items: int, lazy: bool, device: str) -> dict[str, Any]:
    """Time one step of Adam with item embeddings of 200 dimensions."""
    embedding = torch.nn.Embedding(items + 1, 200, device=device)
    layers = torch.nn.ModuleList([embedding, torch.nn.Linear(200, 200, device=device)])
    adam = Adam(layers, embedding.weight, lazy=lazy)
    rows = [torch.randperm(items, device=device)[: min(18_000, items)] + 1 for _ in range(8)]
    gradient = torch.randn(len(rows[0]), 200, device=device)
    adam.step(rows[0], gradient, 1e-3)  # allocates the moments
    times = [_timed(lambda chosen=chosen: adam.step(chosen, gradient, 1e-3)) for chosen in rows[1:]]
    tensors = [embedding.weight, *adam.state().values()]
    tensors += [] if embedding.weight.grad is None else [embedding.weight.grad]
    row = {
        "items": items,
        "optimiser": "lazy" if lazy else "dense",
        "seconds": statistics.median(wall for wall, _ in times),
        "processor_seconds": statistics.median(processor for _, processor in times),
        "memory_mib": sum(tensor.nbytes for tensor in tensors) / 2**20,
    }
    print(
        f"{items:9} items, {row['optimiser']:5} Adam: {1000 * row['seconds']:7.1f} ms per step, "
        f"{1000 * row['processor_seconds']:7.1f} processor ms, {row['memory_mib']:6.0f} MiB",
        flush=True,
    )
    return row


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0]}, {len(names)} cores" if names else "unknown CPU"


def _line(row: dict[str, Any], sessions: int) -> str:
    rate = BATCH / row["seconds"]
    return (
        f"{row['side']:8} {row['precision']:8} threads {row['threads']}: {row['seconds']:7.4f} s per step, "
        f"{row['seconds_behind_the_batch']:7.4f} without making the batch, "
        + (f"{row['seconds_ahead']:7.4f} with prefetched batches, " if "seconds_ahead" in row else "")
        + f"{row['processor_seconds']:7.3f} processor s, {rate:7.0f} sessions/s, "
        f"{sessions / rate / 60:6.1f} min per epoch, "
        f"{row['peak_memory_mib']:6.0f} MiB"
    )


def _print_phases(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        on_gpu = "kernels" in row
        clock, per_second = ("", "per second") if on_gpu else ("processor ", "per processor s")
        print(f"\nours, {row['precision']}, {row['threads']} threads: {clock}milliseconds per step")
        for name, seconds in row["phases"].items():
            print(f"  {name:26} {1000 * seconds:7.1f}")
        search, others = row["products"]
        least = [each["gigaflop"] / each["rate"] for each in (search, others)]
        print(
            f"  products: {search['gigaflop']:.1f} GFLOP of the search in {search['dtype']} (measured "
            f"{search['rate']:.0f} GFLOP {per_second}) and {others['gigaflop']:.1f} in {others['dtype']} "
            f"({others['rate']:.0f}): at those rates {1000 * sum(least):.0f} ms, "
            f"{sum(least) / row['seconds' if on_gpu else 'processor_seconds']:.0%} of the step's {clock}time"
        )
        if on_gpu:
            print(
                f"  on the GPU {row['kernels']} kernels, {1000 * row['kernel_seconds']:.2f} ms of work; a step without "
                f"making the batch {1000 * row['seconds_behind_the_batch']:.2f} ms with CUDA graphs and "
                f"{1000 * row['seconds_without_graphs']:.2f} ms without"
            )


def _print_ratios(rows: list[dict[str, Any]]) -> None:
    by_kind = {(row["side"], row["precision"], row["threads"]): row for row in rows}
    print()
    for side, precision, threads in by_kind:
        if side == "official":
            theirs = by_kind[side, precision, threads]
            for our_precision in ("float32", "bfloat16"):
                ours = by_kind["ours", our_precision, threads]
                times = [f"{theirs[one] / ours[other]:.1f} times {how}" for how, (one, other) in RATIOS.items()]
                print(
                    f"ours in {our_precision} against the authors' {precision}, {threads} threads: {', '.join(times)}"
                )


if __name__ == "__main__":
    main()
