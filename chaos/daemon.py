"""A real Dagster daemon of a shop that can be killed and started again."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import dagster as dg

from chaos.shop import ROOT, environment
from orchestration.automation.night import published_rows, read_night
from orchestration.runtime.instance import prepare_instance
from orchestration.shop.home import load_shop


class Daemon:
    """Context manager: `dagster-daemon run` in a new process group.

    Args:
        home: home folder of the shop.
        sensors: names of sensors to start before the daemon.
        env: further environment variables.
    """

    def __init__(self, home: Path, *, sensors: Sequence[str] = (), **env: str) -> None:
        self.home, self.sensors = home, sensors
        prepared = prepare_instance(load_shop(home))
        self._environment = environment(**prepared, **env)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        with self.instance() as instance:  # creates its tables: two processes that do so at once fail
            instance.get_runs_count()
        self.turn_on(*self.sensors)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the daemon; its log is <home>/daemon.log."""
        with (self.home / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("dagster-daemon"), "run", "-w", ROOT / "workspace.yaml"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill the daemon and its code server with SIGKILL; runs that it started continue."""
        if self._process is None or self._process.poll() is not None:
            return
        children = [
            int(child)
            for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        ]
        self._process.kill()
        self._process.wait()
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def command(self, *words: str) -> str:
        """Run a `dagster` command in the same home and return its standard output.

        Raises:
            RuntimeError: the command fails.
        """
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dagster")), *words, "-w", str(ROOT / "workspace.yaml")],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"dagster {' '.join(words)}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def turn_on(self, *sensors: str) -> None:
        """Start sensors, as an operator does in the UI."""
        for name in sensors:
            self.command("sensor", "start", name)

    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance of the home."""
        return dg.DagsterInstance.from_config(str(load_shop(self.home).dagster_home))

    def wait_until_complete(self, day: dt.date, *, timeout: float) -> None:
        """Wait until a night is complete.

        Args:
            day: its run date.
            timeout: maximum seconds to wait.

        Raises:
            TimeoutError: it is not complete in time.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            shop = load_shop(self.home)
            lake = shop.lake()
            night = read_night(shop, lake, day, published=published_rows(lake))
            if night.complete:
                return
            time.sleep(2)
        raise TimeoutError(f"the night of {day} is not complete after {timeout:.0f} s: {night}")
