"""`make ui`: a Triton server and `dagster dev` over a shop, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from multitron_core.errors import MultitronError
from orchestration.instance import prepare_instance
from orchestration.shop import HOME_VARIABLE, URL_VARIABLE, Shop, load_shop
from serving.server import TritonServer

WORKSPACE = Path(__file__).resolve().parents[1] / "workspace.yaml"


def run_ui(shop: Shop, *, port: int) -> int:
    """Start the server that the steps share, and Dagster's UI and daemon; return the exit status.

    Steps that find no server start one of their own, so the UI also works without this one: it only saves time.
    """
    environment = {**os.environ, **prepare_instance(shop)}
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE), "-h", "127.0.0.1", "-p", str(port)]
    if shop.triton_urls or shop.settings.triton.scorer == "in_process":
        return subprocess.run(command, env=environment, check=False).returncode
    with TritonServer(repository=shop.triton_repository) as server:
        environment[URL_VARIABLE] = server.url
        return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", default=os.environ.get(HOME_VARIABLE, "var/demo"), help="the shop's home folder")
    parser.add_argument("--port", type=int, default=3000, help="the UI's port on 127.0.0.1")
    arguments = parser.parse_args()
    try:
        return run_ui(load_shop(arguments.home), port=arguments.port)
    except MultitronError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
