"""Training in processes of its own: killed, out of memory, and shared by two."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.sessions.prepare import PreparedSessions
from tests.multitron_core.training.examples import same, shop, small, weights

PROGRAM = """
import sys
import torch
torch.set_num_threads(1)
from tests.multitron_core.training.examples import shop, small
from multitron_core.training.trainer import Trainer, train
"""
"""First lines of a program that trains in a process of its own."""


def program(tmp_path: Path, text: str) -> list[str]:
    """The command of a Python program that starts with `PROGRAM`."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + textwrap.dedent(text))
    return [sys.executable, str(path)]


def environment(**variables: str) -> dict[str, str]:
    """The environment of such a program, which imports from this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), **variables}


@pytest.mark.slow
def test_train_killed_ten_times_ends_with_the_same_weights(tmp_path: Path) -> None:
    command = program(
        tmp_path,
        """
        print("ready", flush=True)
        step = Trainer.step

        def reported(trainer, inputs):
            print("step", flush=True)
            return step(trainer, inputs)

        Trainer.step = reported
        train(shop(), small(epochs=6, batch_sessions=8, checkpoint_steps=3), sys.argv[1], progress=False)
        """,
    )
    whole = subprocess.run(
        [*command, str(tmp_path / "whole")], env=environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    # Ten kills after at most a fifteenth of the steps each: none of the ten finds the training finished.
    most, moments = whole.stdout.count("step") // 15, random.Random(1)
    killed = [*command, str(tmp_path / "killed")]
    for _ in range(10):
        process = subprocess.Popen(killed, env=environment(), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(1 + moments.randrange(most)):
            assert process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.01))  # into a step, or into writing the checkpoint
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed").exists()
    subprocess.run(killed, env=environment(), stdout=subprocess.PIPE, check=True)
    assert same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_train_out_of_memory_keeps_the_checkpoint(tmp_path: Path) -> None:
    command = program(
        tmp_path,
        """
        import resource
        from pathlib import Path
        from multitron_core.errors import InputError
        out, limited, stops = sys.argv[1], "limited" in sys.argv, "stops" in sys.argv
        train(shop(), small(epochs=1), out + "-before", resume=False, progress=False)
        if limited:  # 60 MB more than now; a step takes some hundred
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + 60 * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        big = small(epochs=2, batch_sessions=4000, validation_share=0.0).changed(model={"dimension": 128})
        try:
            stop = (lambda row: sys.exit("stopped")) if stops else None
            train(shop(sessions=4000), big, out, progress=False, on_epoch=stop)
        except InputError as error:
            sys.exit(f"error: {error}")
        """,
    )

    def run(name: str, *how: str) -> str:
        # One arena: glibc reserves 64 MB for each, which the limit would count.
        done = subprocess.run(
            [*command, str(tmp_path / name), *how],
            env=environment(MALLOC_ARENA_MAX="1"),
            stderr=subprocess.PIPE,
            text=True,
        )
        return done.stderr

    assert run("whole") == ""
    assert run("model", "stops") == "stopped\n"
    checkpoint = (tmp_path / "model.checkpoint").read_bytes()
    refused = run("model", "limited")
    assert "error: out of memory; where: epoch 1, batch 0 on cpu" in refused
    assert "lower batch_sessions, then uniform_negatives" in refused
    assert (tmp_path / "model.checkpoint").read_bytes() == checkpoint
    assert not (tmp_path / "model").exists()
    assert run("model") == ""
    assert same(tmp_path / "whole", tmp_path / "model")


def trained_by_processes(count: int, tmp_path: Path, settings: dict[str, object]) -> Path:
    """Train under torchrun, each process on its share of every batch."""
    data = shop(sessions=90)
    PreparedSessions(data.train, data.train, data.vocabulary, {}).save(tmp_path / "prepared")
    out = tmp_path / f"by-{count}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += ["-m", "multitron_core.training", "--sessions", str(tmp_path / "prepared"), "--out", str(out)]
    command += ["--preset", "demo", "--device", "cpu", "--training", json.dumps(settings)]
    command += ["--model", json.dumps({"dimension": 16, "layers": 1, "dropout": 0.0})]
    done = subprocess.run(command, env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_train_by_two_processes_matches_one(tmp_path: Path) -> None:
    # An odd number of sessions per batch: the shares of the two differ.
    settings = {**small().training.flat(), "epochs": 2, "batch_sessions": 37}
    one, two = (trained_by_processes(count, tmp_path, settings) for count in (1, 2))
    first, second = (
        pl.read_parquet(folder / "metrics.parquet").drop("seconds", "sessions_per_second") for folder in (one, two)
    )
    np.testing.assert_allclose(second.to_numpy(), first.to_numpy(), rtol=1e-4, atol=1e-5)
    for name, tensor in weights(one).items():
        other = weights(two)[name]
        if name.endswith("attention_in.bias"):
            # Softmax ignores the bias of the keys: its gradient is rounding, which Adam scales up.
            tensor, other = (torch.cat([each.chunk(3)[i] for i in (0, 2)]) for each in (tensor, other))
        torch.testing.assert_close(other, tensor, rtol=1e-3, atol=1e-4, msg=name)
