"""`make ui`: a Triton server and `dagster dev` over a shop, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys

from multitron_core.errors import InputError, MultitronError
from orchestration.automation.rerun_commands import WORKSPACE
from orchestration.runtime.instance import prepare_instance
from orchestration.runtime.resources import triton_server
from orchestration.shop.home import HOME_VARIABLE, URL_VARIABLE, Shop, load_shop

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 20
"""How long Dagster's processes have to stop."""


def run_ui(shop: Shop, *, port: int) -> int:
    """Start the server that the steps share, and Dagster's UI and daemon; return the exit status.

    Steps that find no server start one of their own, so the UI also works without this one: it only saves time.

    Raises:
        InputError: the port is in use, or no Triton server can be started here.
    """
    _check_free(port)
    print(
        f"The UI will be on http://{LOOPBACK}:{port} in half a minute; Ctrl-C ends it.\n"
        "Lineage: the assets as a graph. Catalog: a page for each. Runs: what ran, also for `make demo`. "
        "Automation: what starts the nights.",
        flush=True,
    )
    environment = {**os.environ, **prepare_instance(shop)}
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE), "-h", LOOPBACK, "-p", str(port)]
    if shop.triton_urls or shop.scores_in_process:
        return _until_it_ends(command, environment)
    with triton_server(shop) as server:
        environment[URL_VARIABLE] = server.url
        return _until_it_ends(command, environment)


def _until_it_ends(command: list[str], environment: dict[str, str]) -> int:
    """Run a command; whatever ends this process kindly (Ctrl-C, SIGTERM) ends the command and its children first."""
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
    """Refuse a port that somebody listens on: Dagster would start everything else first, and then abort unexplained."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise InputError(
                "the UI's port cannot be used",
                where=f"{LOOPBACK}:{port}",
                found=error.strerror,
                hint=f"stop what uses it (another `make ui`?), or choose another: make ui PORT={port + 1}",
            ) from error


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", default=os.environ.get(HOME_VARIABLE, "var/demo"), help="the shop's home folder")
    parser.add_argument("--port", type=int, default=3000, help="the UI's port on 127.0.0.1")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_ui(load_shop(arguments.home), port=arguments.port)
    except MultitronError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
