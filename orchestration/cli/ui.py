"""`multitron ui` (`make ui`): the Dagster UI and daemon with a Triton server, in the foreground."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from multitron_core.errors import InputError
from orchestration.automation.rerun_commands import WORKSPACE
from orchestration.runtime.instance import prepare_instance
from orchestration.runtime.resources import triton_server
from orchestration.shop.home import URL_VARIABLE, Shop

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 20
"""Seconds that Dagster's processes have to stop before they are killed."""


def run_ui(shop: Shop, *, port: int) -> int:
    """Start a Triton server, and Dagster's UI and daemon, and wait until they end.

    The server is shared by all steps. A step that finds no server starts one, so the UI works without it too, slower.

    Args:
        shop: the shop.
        port: of the UI, on 127.0.0.1.

    Returns:
        The exit status of Dagster.

    Raises:
        InputError: the port is in use, or no Triton server can be started on this machine.
    """
    _check_free(port)
    print(
        f"The UI starts on http://{LOOPBACK}:{port} within about 30 seconds. Ctrl-C stops it.\n"
        "Lineage: the asset graph. Catalog: one page per asset. Runs: every run, also those of `make demo`. "
        "Automation: schedules and sensors that start the nights.",
        flush=True,
    )
    environment = {**os.environ, **prepare_instance(shop)}
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE), "-h", LOOPBACK, "-p", str(port)]
    if shop.triton_urls or shop.scores_in_process:
        return _run_until_stopped(command, environment)
    with triton_server(shop) as server:
        environment[URL_VARIABLE] = server.url
        return _run_until_stopped(command, environment)


def _run_until_stopped(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; an interrupt (Ctrl-C, SIGTERM) stops the command and its children first."""
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def _check_free(port: int) -> None:
    """Refuse a port in use. Dagster would start everything else first and then abort without a reason."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise InputError(
                "the port of the UI cannot be used",
                where=f"{LOOPBACK}:{port}",
                found=error.strerror,
                hint=f"stop the process that uses it (another `make ui`?), or use another: make ui PORT={port + 1}",
            ) from error


if __name__ == "__main__":
    from orchestration.cli.app import main

    main(["ui", *sys.argv[1:]], prog_name="multitron")
