"""The tritonserver process: failures at the start, and what a killed owner leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from multitron_core.errors import UnavailableError
from serving.addresses import free_ports
from serving.triton_process import REGION_PREFIX, SHARED_MEMORY, TritonProcess, remove_dead_regions
from tests.serving.conftest import is_alive, wait_until


def start(folder: Path, script: str | None) -> TritonProcess:
    """A process whose binary is a shell script; None for a binary that is missing."""
    binary = folder / "home" / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    if script is not None:
        binary.write_text(f"#!/bin/sh\n{script}\n")
        binary.chmod(0o755)
    ports = free_ports({"grpc": 0, "http": 0, "metrics": 0})
    return TritonProcess(
        folder, ports, home=folder / "home", backends=folder, log_file=folder / "log", stop_timeout=0.0
    )


@pytest.mark.parametrize(
    ("script", "log"), [("echo 'a library is missing'; exit 3", "a library is missing"), (None, "No such file")]
)
def test_triton_process_shows_its_log_when_it_ends(tmp_path: Path, script: str | None, log: str) -> None:
    process = start(tmp_path, script)
    with pytest.raises(UnavailableError, match=rf"(?s)tritonserver has ended.*exit status [13].*{log}"):
        process.raise_if_ended(within=60.0)
    process.stop()
    assert process.process_id is None


def test_triton_process_keeps_the_previous_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("the previous server\n")
    process = start(tmp_path, "echo 'this server'")
    process.stop()
    assert (tmp_path / "log.1").read_text() == "the previous server\n"


def test_triton_process_is_killed_if_it_ignores_sigterm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = start(tmp_path, "trap '' TERM; echo started; while :; do sleep 0.1; done")
    wait_until(lambda: "started" in process.log_file.read_text())
    process.raise_if_ended()
    process.stop()
    assert process.process_id is None
    assert "did not stop in time and is killed" in caplog.text


def test_triton_process_ends_with_its_parent(tmp_path: Path, triton: Path) -> None:
    program = (
        "import sys, time\n"
        "from serving.server import TritonServer\n"
        "with TritonServer(sys.argv[1]) as server:\n"
        "    print(server.process_id, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "repository")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not is_alive(pid))


def test_remove_dead_regions_keeps_those_of_running_owners() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = SHARED_MEMORY / f"{REGION_PREFIX}_{ended.pid}_left"
    used = SHARED_MEMORY / f"{REGION_PREFIX}_{os.getpid()}_used"
    left.touch()
    used.touch()
    remove_dead_regions()
    assert not left.exists()
    assert used.exists()
    used.unlink()
