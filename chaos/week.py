"""`make week`: seven nights through the real Dagster daemon, five pi each, one fault per night, and their `status`.

The nights are those of the past week, run one after another. The files of a day are delivered when its turn comes, and
the deadline setting of its night is chosen so that it passes some minutes later. Daemon, sensors, runs, Triton server,
tables and webhook are real.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import gzip
import http.server
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from chaos import shop as small
from chaos.daemon import Daemon
from multitron_core.preference.keys import DEFAULT_GRID
from multitron_core.simulator.simulation import simulate
from orchestration.automation.run_history import UNFINISHED
from orchestration.automation.status import NightStatus, status
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop
from serving.server import TritonServer

DAYS = 7
SENSORS = ("nights", "failed_runs", "missing_preferences")


@dataclass
class Webhook:
    """A webhook on loopback that keeps the alerts that it receives."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[Webhook]:
        """Receive alerts within the block."""
        alerts = self.alerts

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield self
        finally:
            server.shutdown()


@dataclass(frozen=True)
class Week:
    """The parts of a running week.

    Args:
        home: home folder of the shop.
        daemon: the Dagster daemon.
        hook: receives the alerts.
        server: the Triton server.
        patience: maximum seconds to wait for an expected state.
    """

    home: Path
    daemon: Daemon
    hook: Webhook
    server: TritonServer
    patience: float

    def night(self, day: dt.date) -> NightStatus:
        """The current `status` of a night."""
        shop = load_shop(self.home)
        with self.daemon.instance() as instance:
            return next(night for night in status(shop, instance, nights=DAYS).nights if night.day == day)

    def alerts(self, day: dt.date, kind: str) -> list[dict[str, Any]]:
        """The alerts of a kind that name a day."""
        return [alert for alert in self.hook.alerts if alert["kind"] == kind and str(day) in (alert["partition"] or "")]

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until `holds` returns true.

        Raises:
            TimeoutError: it does not within `patience`.
        """
        end = time.monotonic() + self.patience
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(2)

    def complete(self, day: dt.date) -> None:
        """Wait until a night is complete."""
        self.wait(f"the night of {day} is complete", lambda: self.night(day).complete)

    def deliver(self, day: dt.date, damaged: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> None:
        """Deliver the file of a day, optionally damaged, with an old modification time."""
        name = f"events-{day}.csv.gz"
        rows = damaged(pl.read_csv(self.home / "deliveries" / name, infer_schema=False))
        incoming = self.home / name
        incoming.write_bytes(gzip.compress(rows.write_csv().encode()))
        os.utime(incoming, (0, 0))
        incoming.rename(self.home / "raw" / name)

    def running(self, job: str) -> int | None:
        """The process id of an unfinished run of a job, from Dagster's log; None if there is none."""
        with self.daemon.instance() as instance:
            for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(UNFINISHED))):
                for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
                    process = entry.get_dagster_event().engine_event_data.metadata.get("pid")
                    if process is not None and Path(f"/proc/{process.value}").exists():
                        return int(str(process.value))
        return None


def undisturbed(week: Week, day: dt.date) -> str:
    """No fault."""
    week.deliver(day)
    week.complete(day)
    return "complete"


def late_files(week: Week, day: dt.date) -> str:
    """Files delivered after the deadline."""
    week.wait("the alert of missing preferences", lambda: bool(week.alerts(day, "preferences_missing")))
    night = week.night(day)
    assert {each.state for each in night.preferences} == {"late"}, night
    assert "no table file" in night.preferences[0].why
    lake = load_shop(week.home).lake()
    assert lake.publications().filter(run_date=day).is_empty(), "another day's data was scored as this day's"
    week.deliver(day)
    week.complete(day)
    week.wait("the alert of the complete night", lambda: bool(week.alerts(day, "night_complete")))
    return "alert preferences_missing, status late; complete after the delivery, alert night_complete"


def bad_file(week: Week, day: dt.date) -> str:
    """A file of damaged lines, corrected after the alert."""
    week.deliver(day, lambda rows: rows.with_columns(ts=pl.lit("yesterday")))
    week.wait("the alert of the failed run", lambda: bool(week.alerts(day, "run_failed")))
    night = week.night(day)
    assert {each.state for each in night.preferences} == {"failed"}, night
    week.deliver(day)
    week.complete(day)
    error = week.alerts(day, "run_failed")[0]["error"]
    return f"alert run_failed ({error[:60]}…), status failed; complete after the correction"


def run_killed(week: Week, day: dt.date) -> str:
    """kill -9 of a scoring run."""
    week.deliver(day)
    found: list[int] = []

    def is_running() -> bool:
        process = week.running("scoring")
        found.extend([process] if process else [])
        return bool(found)

    week.wait("a scoring run is running", is_running)
    time.sleep(4)
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGKILL)
    week.complete(day)
    return "complete: the instance retried the killed run"


def daemon_killed(week: Week, day: dt.date) -> str:
    """kill -9 of the daemon."""
    week.deliver(day)
    time.sleep(25)
    week.daemon.kill()
    time.sleep(5)
    week.daemon.start()
    week.complete(day)
    return "complete after its restart"


def server_away(week: Week, day: dt.date) -> str:
    """A Triton server that is stopped for 15 s."""
    week.deliver(day)
    week.wait("a scoring run is running", lambda: week.running("scoring") is not None)
    assert week.server.process_id is not None
    os.kill(week.server.process_id, signal.SIGSTOP)
    time.sleep(15)
    os.kill(week.server.process_id, signal.SIGCONT)
    week.complete(day)
    return "complete: retries succeeded"


def half_a_day(week: Week, day: dt.date) -> str:
    """A delivery without nine tenths of its sessions: it must not be published."""
    week.deliver(day, lambda rows: rows.filter(pl.col("session_id").hash() % 10 == 0))
    week.wait("the alert of the failed run", lambda: bool(week.alerts(day, "run_failed")))
    week.wait("every preference failed", lambda: {each.state for each in week.night(day).preferences} == {"failed"})
    return f"not published; alert run_failed ({week.alerts(day, 'run_failed')[0]['error'][:80]}…), status failed"


FAULTS = (undisturbed, late_files, run_killed, bad_file, daemon_killed, server_away, half_a_day)


def make_week(home: Path, nights: int) -> list[dt.date]:
    """Create a shop with a live model before its nights; returns their days, the last of them yesterday."""
    small.make_base(home)
    today = dt.datetime.now(dt.UTC).date()
    days = [today - dt.timedelta(days=back) for back in range(nights, 0, -1)]
    shutil.rmtree(home / "raw")
    shutil.rmtree(home / "lake")
    simulate(home / "deliveries", sessions=600 * nights, items=300, days=nights, first_day=days[0])
    (home / "raw").mkdir()
    return days


def settings(days: list[dt.date], tonight: dt.date, minutes: float) -> Settings:
    """Settings with the deadline of the night `tonight` in `minutes` minutes from now."""
    end = dt.datetime.combine(tonight, dt.time(), dt.UTC) + dt.timedelta(days=1)
    hours = (dt.datetime.now(dt.UTC) - end) / dt.timedelta(hours=1) + minutes / 60
    return Settings.model_validate(
        {
            **small.SETTINGS,
            "calendar": {"first_day": days[0], "last_day": days[-1]},
            "scoring": {"pi": DEFAULT_GRID, "k": 10},
            "triton": {"scorer": "triton", "timeout_seconds": 60.0},
            "night": {"begins_hours": 0.0, "deadline_hours": hours, "catch_up_days": DAYS},
        }
    )


def main() -> int:
    """Command line; the exit status is 1 if a night does not end as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--patience", type=float, default=600, help="maximum seconds to wait for an expected state of a night"
    )
    parser.add_argument("--only", default="", help="run only nights whose fault contains one of these: kill,stopped")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="multitron-week-") as folder, Webhook().listening() as hook:
        return run(Path(folder) / "shop", hook, given.patience, given.only.split(","))


def run(home: Path, hook: Webhook, patience: float, only: Sequence[str]) -> int:
    """Run the week; prints one line per night, and at the end the status of all nights."""
    faults = [fault for fault in FAULTS if any(part.strip() in str(fault.__doc__) for part in only)]
    days = make_week(home, len(faults))
    write_shop(home, settings(days, days[0], 5))
    wrong = 0
    print("night | fault | seconds | ended", flush=True)
    with TritonServer(load_shop(home).triton_repository) as server:
        environment = {"MULTITRON_ALERT_WEBHOOK": hook.url, "MULTITRON_TRITON_URL": server.url}
        with Daemon(home, sensors=SENSORS, **environment) as daemon:
            week = Week(home, daemon, hook, server, patience)
            for day, fault in zip(days, faults, strict=True):
                write_shop(home, settings(days, day, 1 if fault is late_files else 30))
                start_time = time.monotonic()
                try:
                    ended = fault(week, day)
                except (AssertionError, TimeoutError) as error:
                    wrong += 1
                    ended = f"WRONG: {type(error).__name__} {error}"
                print(f"{day} | {fault.__doc__} | {time.monotonic() - start_time:.0f} | {ended}", flush=True)
            wrong += _compare_status_with_tables(week, days)
    print("every night was published or reported" if not wrong else f"{wrong} WRONG")
    return 1 if wrong else 0


def _compare_status_with_tables(week: Week, days: list[dt.date]) -> int:
    """Print the status of every night; returns for how many it differs from the tables."""
    published = load_shop(week.home).lake().publications()
    wrong = 0
    for day in days:
        night = week.night(day)
        reported = {each.pi for each in night.preferences if each.state == "published"}
        rows = published.filter(run_date=day).group_by("pi").len().filter(pl.col("len") == 3)
        wrong += reported != set(rows["pi"])
        states = " ".join(f"{each.pi} {each.state}" for each in night.preferences)
        print(f"status of {day}: {states}{'' if reported == set(rows['pi']) else '  DIFFERS FROM THE TABLES'}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
