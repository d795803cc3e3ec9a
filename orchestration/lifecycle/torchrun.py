"""Training by several processes of this machine, started by torchrun: what `[model] processes` of a shop asks for.

The processes die with the one that asked for them; the checkpoint lets the next attempt go on where they were.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from multitron_core.errors import InputError, UnavailableError
from multitron_core.training.presets import Preset
from serving import parent_death_signal


def train_in_processes(
    sessions: Path,
    config: Preset,
    out_dir: Path,
    *,
    processes: int,
    device: str = "auto",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Path:
    """What `training.train` does, by several processes, each on its share of every batch.

    Args:
        sessions: folder of prepared sessions.
        config: a preset of `preset.PRESETS`, with any of its settings changed.
        out_dir: the model folder.
        processes: how many; on CUDA each takes a device.
        device: "auto", "cpu" or "cuda".
        on_epoch: called with each epoch's row of the metrics as it comes.

    Raises:
        InputError: what training refuses.
        UnavailableError: one of the processes was killed.
        RuntimeError: the processes ended otherwise, with the end of what they said.
    """
    command = [sys.executable, parent_death_signal.__file__, str(os.getpid()), sys.executable]
    command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "multitron_core.training", "--sessions", str(sessions), "--out", str(out_dir)]
    command += ["--preset", config.name, "--device", device]
    command += [
        "--model",
        json.dumps(dict(config.model)),
        "--training",
        json.dumps(config.training.flat()),
    ]
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as running:
            assert running.stdout is not None  # a pipe was asked for
            for line in running.stdout:
                if on_epoch and line.startswith("{"):
                    on_epoch(json.loads(line))
        if running.returncode:
            said.seek(0)
            lines = said.read().splitlines()
            refused = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            if refused:
                raise InputError(refused[0])
            if any("SIGKILL" in line for line in lines):
                raise UnavailableError(
                    "a training process was killed",
                    where=out_dir,
                    found="SIGKILL, which the system sends when memory runs out",
                    hint="run it again, it goes on from its checkpoint; where memory ran out (`dmesg` says so), lower "
                    "batch_sessions, uniform_negatives or [model] processes first",
                )
            raise RuntimeError(f"torchrun ended with {running.returncode}:\n" + "\n".join(lines[-40:]))
    return out_dir
