"""`make chaos`: inject every fault into a night of a small shop, and print one row per fault.

    python -m chaos [--only <parts of names>] [--seed 1] [--minutes 15] [--nights 30]

The exit status is 1 if a table differs from that of an undisturbed night, or if the time ended before all faults were
injected.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.faults import FAULTS, Fault, NotPossibleError
from chaos.shop import SETTINGS, digest, finish, make_base, night, start
from multitron_core.simulator.simulation import simulate
from orchestration.runtime.instance import prepare_instance
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="inject only faults whose name contains one of these: kill,disk")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random times and places")
    parser.add_argument("--minutes", type=float, default=15, help="start no further fault after this time")
    parser.add_argument("--nights", type=int, default=30, help="number of nights in a row; 0 skips them")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    logging.getLogger("serving").setLevel(logging.ERROR)  # refused models and in-process scoring are expected
    with tempfile.TemporaryDirectory(prefix="multitron-chaos-") as folder:
        return run(Path(folder), only=given.only, seed=given.seed, end=end, nights=given.nights)


def run(folder: Path, *, only: str, seed: int, end: float, nights: int) -> int:
    """Inject the faults and print the table.

    Args:
        folder: an empty folder for the homes.
        only: comma-separated parts of fault names; empty for all faults.
        seed: of the random times and places.
        end: value of `time.monotonic` after which nothing further starts.
        nights: nights in a row; 0 skips them.

    Returns:
        The exit status: 1 if rows were lost or a fault was not injected.
    """
    patterns = only.split(",")
    chosen = [fault for fault in FAULTS if _matches(fault.name, patterns)]
    wrong = skipped = 0
    base = make_base(folder / "base")
    expected = undisturbed(base)
    print("fault | times | seconds | lost | reported to the operator\n--- | --- | --- | --- | ---", flush=True)
    for fault in chosen:
        if time.monotonic() > end:
            skipped += 1
            print(f"{fault.name} | 0 | - | - | not injected: the time has ended", flush=True)
            continue
        outcome = inject(fault, base, expected, random.Random(f"{seed} {fault.name}"))
        wrong += outcome.wrong
        print(outcome.line, flush=True)
    if nights and _matches("nights in a row", patterns):
        if time.monotonic() > end:
            skipped += 1
            print(f"{nights} nights in a row | 0 | - | - | not started: the time has ended")
        else:
            wrong += _nights_in_a_row(folder / "many", nights)
    print(f"\n{f'{wrong} LOST DATA' if wrong else f'{skipped} NOT INJECTED' if skipped else 'nothing was lost'}")
    return 1 if wrong or skipped else 0


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(part.strip() in name for part in patterns)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a fault.

    Args:
        line: a row of the printed table.
        wrong: whether the tables differ from those of an undisturbed night, or the injection failed.
    """

    line: str
    wrong: bool


def undisturbed(base: Path) -> dict[str, str]:
    """The `digest` of an undisturbed night of a shop.

    Raises:
        RuntimeError: the night fails.
    """
    prepare_instance(load_shop(base))
    home = base.with_name("undisturbed")
    shutil.copytree(base, home, symlinks=True)
    status, message = night(home)
    if status:
        raise RuntimeError(f"the undisturbed night failed: {message}")
    return digest(home)


def inject(fault: Fault, base: Path, expected: dict[str, str], chance: random.Random) -> Outcome:
    """Inject a fault into the night of a copy of a shop.

    Args:
        fault: the fault.
        base: home of the shop, before its night.
        expected: `undisturbed(base)`.
        chance: random times and places.
    """
    home = base.with_name("disturbed")
    shutil.copytree(base, home, symlinks=True)
    start_time, times, lost, report = time.monotonic(), 0, "nothing", ""
    try:
        times, report = fault.inject(home, chance)
        found = digest(home)
        different = [name for name in expected if found[name] != expected[name]]
        if different:
            lost = ", ".join(different)
    except NotPossibleError as reason:
        lost, report = "-", f"skipped: {reason}"
    except Exception as error:  # noqa: BLE001 (the other faults must still be injected)
        lost, report = "FAILED", f"{type(error).__name__}: {error}"
    shutil.rmtree(home, ignore_errors=True)
    seconds = time.monotonic() - start_time
    line = f"{fault.name} | {times} | {seconds:.0f} | {lost} | {' '.join(report.split())[:300]}"
    return Outcome(line, lost not in ("nothing", "-"))


def _nights_in_a_row(home: Path, nights: int) -> bool:
    """Run nights in one process, with housekeeping: memory, open files and table sizes must stay constant.

    Returns:
        Whether they did not, or a night failed.
    """
    start_time = time.monotonic()
    make_base(home, sessions=1_000, items=200)
    settings: dict[str, Any] = {**SETTINGS, "tables": {"keep_days": 5}, "scoring": {"pi": ["0.50"], "k": 10}}
    first = load_shop(home).settings.calendar.first_day
    last = first + dt.timedelta(days=nights - 1)
    write_shop(home, Settings.model_validate({**settings, "calendar": {"first_day": first, "last_day": last}}))
    shutil.rmtree(home / "raw")
    shutil.rmtree(home / "lake")
    simulate(home / "raw", sessions=250 * nights, items=200, days=nights, first_day=first)
    prepare_instance(load_shop(home))
    status, message = finish(start(home, "--nights", str(nights)), timeout=900)
    if status:
        print(f"{nights} nights in a row | - | - | FAILED | {message}")
        return True
    measurements = json.loads(message.splitlines()[-1])
    # The first third is warm-up: caches fill, and housekeeping has nothing to delete yet.
    early, late = measurements[nights // 3], measurements[-1]
    growth = {name: late[name] / max(early[name], 1e-9) for name in early}
    flat = growth["rss_mb"] < 1.25 and late["open_files"] <= early["open_files"] + 5 and growth["lists_mb"] < 1.6
    figures = ", ".join(f"{name} {early[name]:.4g} -> {late[name]:.4g}" for name in early)
    seconds = time.monotonic() - start_time
    print(f"{nights} nights in a row | {nights} | {seconds:.0f} | {'nothing' if flat else 'NOT FLAT'} | {figures}")
    return not flat


if __name__ == "__main__":
    sys.exit(main())
