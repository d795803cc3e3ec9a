"""Training in several processes of this machine, started by torchrun; `processes` of [model] is their number.

The processes end with the process that started them. The next attempt resumes from the checkpoint.
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
    """Train as `multitron_core.training.train` does, in several processes; each takes its share of every batch.

    Args:
        sessions: folder of prepared sessions.
        config: a preset of `multitron_core.training.presets`, its settings changed or not.
        out_dir: the model folder.
        processes: number of processes; with CUDA each uses one device.
        device: "auto", "cpu" or "cuda".
        on_epoch: called with the row of metrics of each epoch, when the epoch ends.

    Returns:
        `out_dir`.

    Raises:
        InputError: training refused its input.
        UnavailableError: one of the processes was killed.
        RuntimeError: the processes failed in another way; the message ends with their last lines of output.
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
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as running:
            assert running.stdout is not None  # it is a pipe
            for line in running.stdout:
                if on_epoch and line.startswith("{"):
                    on_epoch(json.loads(line))
        if running.returncode:
            errors.seek(0)
            lines = errors.read().splitlines()
            refused = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            if refused:
                raise InputError(refused[0])
            if any("SIGKILL" in line for line in lines):
                raise UnavailableError(
                    "a training process was killed",
                    where=out_dir,
                    found="SIGKILL, which the system sends when it runs out of memory",
                    hint="run it again, it resumes from its checkpoint; if memory ran out (see `dmesg`), lower "
                    "batch_sessions, uniform_negatives or [model] processes first",
                )
            raise RuntimeError(f"torchrun failed with exit status {running.returncode}:\n" + "\n".join(lines[-40:]))
    return out_dir
