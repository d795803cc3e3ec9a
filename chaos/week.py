"""`make week`: seven nights through the real Dagster daemon, five pi each, a fault a night, and what `status` says.

Time is moved by the deadline: the days lie in the past week, each is delivered when its turn comes, and the deadline of
its night lies so many hours after the day's end that it is some minutes away. Daemon, sensors, runs, Triton server,
tables and webhook are the real ones.
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
from orchestration.automation.run_history import AT_WORK
from orchestration.automation.status import NightStatus, status
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop
from serving.server import TritonServer

DAYS = 7
SENSORS = ("nights", "failed_runs", "missing_preferences")


@dataclass
class Webhook:
    """A server on loopback that keeps the alerts that it is sent."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[Webhook]:
        kept = self.alerts

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
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
    """What the faults work on."""

    home: Path
    daemon: Daemon
    hook: Webhook
    server: TritonServer
    patience: float

    def night(self, day: dt.date) -> NightStatus:
        """What `status` says of a night now."""
        here = load_shop(self.home)
        with self.daemon.instance() as instance:
            return next(night for night in status(here, instance, nights=DAYS).nights if night.day == day)

    def alerts(self, day: dt.date, kind: str) -> list[dict[str, Any]]:
        """The alerts of a kind that name a day."""
        return [alert for alert in self.hook.alerts if alert["kind"] == kind and str(day) in (alert["partition"] or "")]

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds.

        Raises:
            TimeoutError: it does not within the patience.
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
        """Put a day's file in its place, whole or damaged, as if it had been there for a while."""
        name = f"events-{day}.csv.gz"
        rows = damaged(pl.read_csv(self.home / "deliveries" / name, infer_schema=False))
        on_its_way = self.home / name
        on_its_way.write_bytes(gzip.compress(rows.write_csv().encode()))
        os.utime(on_its_way, (0, 0))
        on_its_way.rename(self.home / "raw" / name)

    def running(self, job: str) -> int | None:
        """The process of a run of a job that is at work, as Dagster's log has it; None when there is none."""
        with self.daemon.instance() as instance:
            for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(AT_WORK))):
                for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
                    process = entry.get_dagster_event().engine_event_data.metadata.get("pid")
                    if process is not None and Path(f"/proc/{process.value}").exists():
                        return int(str(process.value))
        return None


def undisturbed(week: Week, day: dt.date) -> str:
    """Nothing."""
    week.deliver(day)
    week.complete(day)
    return "complete"


def late_files(week: Week, day: dt.date) -> str:
    """Files that come after the deadline."""
    week.wait("the alert of missing preferences", lambda: bool(week.alerts(day, "preferences_missing")))
    night = week.night(day)
    assert {each.state for each in night.preferences} == {"late"}, night
    assert "no table file" in night.preferences[0].why
    lake = load_shop(week.home).lake()
    assert lake.publications().filter(run_date=day).is_empty(), "yesterday's data was scored as today's"
    week.deliver(day)
    week.complete(day)
    week.wait("the all-clear", lambda: bool(week.alerts(day, "night_complete")))
    return "alert preferences_missing, status late; complete after the files came, alert night_complete"


def bad_file(week: Week, day: dt.date) -> str:
    """A file of damaged lines, mended after the alert."""
    week.deliver(day, lambda rows: rows.with_columns(ts=pl.lit("yesterday")))
    week.wait("the alert of the failed run", lambda: bool(week.alerts(day, "run_failed")))
    night = week.night(day)
    assert {each.state for each in night.preferences} == {"failed"}, night
    week.deliver(day)
    week.complete(day)
    return (
        f"alert run_failed ({week.alerts(day, 'run_failed')[0]['error'][:60]}…), status failed; complete after the mend"
    )


def run_killed(week: Week, day: dt.date) -> str:
    """kill -9 of a scoring run."""
    week.deliver(day)
    found: list[int] = []

    def at_work() -> bool:
        process = week.running("scoring")
        found.extend([process] if process else [])
        return bool(found)

    week.wait("a scoring run at work", at_work)
    time.sleep(4)
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGKILL)
    week.complete(day)
    return "complete: the instance started the killed run again"


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
    """A Triton server that stands still for a while."""
    week.deliver(day)
    week.wait("a scoring run at work", lambda: week.running("scoring") is not None)
    assert week.server.process_id is not None
    os.kill(week.server.process_id, signal.SIGSTOP)
    time.sleep(15)
    os.kill(week.server.process_id, signal.SIGCONT)
    week.complete(day)
    return "complete: it was waited out"


def half_a_day(week: Week, day: dt.date) -> str:
    """A delivery that has lost nine tenths of its sessions: it must not be published."""
    week.deliver(day, lambda rows: rows.filter(pl.col("session_id").hash() % 10 == 0))
    week.wait("the alert of the failed run", lambda: bool(week.alerts(day, "run_failed")))
    week.wait("every preference failed", lambda: {each.state for each in week.night(day).preferences} == {"failed"})
    return f"not published; alert run_failed ({week.alerts(day, 'run_failed')[0]['error'][:80]}…), status failed"


FAULTS = (undisturbed, late_files, run_killed, bad_file, daemon_killed, server_away, half_a_day)


def make_week(home: Path, nights: int) -> list[dt.date]:
    """A shop with a live model and so many nights to come, the last of them yesterday."""
    small.make_base(home)
    today = dt.datetime.now(dt.UTC).date()
    days = [today - dt.timedelta(days=back) for back in range(nights, 0, -1)]
    shutil.rmtree(home / "raw")
    shutil.rmtree(home / "lake")
    simulate(home / "deliveries", sessions=600 * nights, items=300, days=nights, first_day=days[0])
    (home / "raw").mkdir()
    return days


def settings(days: list[dt.date], tonight: dt.date, minutes: float) -> Settings:
    """The shop's settings as of a night, whose deadline is so many minutes away."""
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
    """The command line; 1 when a night did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patience", type=float, default=600, help="seconds to wait for what a night must come to")
    parser.add_argument("--only", default="", help="only nights whose fault has one of these in it: kill,still")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="multitron-week-") as folder, Webhook().listening() as hook:
        return run(Path(folder) / "shop", hook, given.patience, given.only.split(","))


def run(home: Path, hook: Webhook, patience: float, only: Sequence[str]) -> int:
    """The week; prints a line a night, and at the end the last word of `status`."""
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
                began = time.monotonic()
                try:
                    ended = fault(week, day)
                except (AssertionError, TimeoutError) as error:
                    wrong += 1
                    ended = f"WRONG: {type(error).__name__} {error}"
                print(f"{day} | {fault.__doc__} | {time.monotonic() - began:.0f} | {ended}", flush=True)
            wrong += _last_word(week, days)
    print("every night was published or reported" if not wrong else f"{wrong} WRONG")
    return 1 if wrong else 0


def _last_word(week: Week, days: list[dt.date]) -> int:
    """Whether `status` says of every night what is in the tables."""
    published = load_shop(week.home).lake().publications()
    wrong = 0
    for day in days:
        night = week.night(day)
        said = {each.pi for each in night.preferences if each.state == "published"}
        rows = published.filter(run_date=day).group_by("pi").len().filter(pl.col("len") == 3)
        wrong += said != set(rows["pi"])
        states = " ".join(f"{each.pi} {each.state}" for each in night.preferences)
        print(f"status of {day}: {states}{'' if said == set(rows['pi']) else '  NOT WHAT THE TABLES SAY'}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
