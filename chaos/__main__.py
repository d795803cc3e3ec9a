"""`make chaos`: every fault into a night of a small shop, and a table of what came of it.

    python -m chaos [--only <part of a name>] [--seed 1] [--minutes 15] [--nights 30]

The exit status is 1 when a table differs from an undisturbed night's.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos.faults import FAULTS, Fault, NotPossibleError
from chaos.shop import SETTINGS, digest, finish, make_base, night, start
from multitron_core.simulator import simulate
from orchestration.instance import prepare_instance
from orchestration.shop import Settings, load_shop, write_shop


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only faults whose name has this in it")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments and places")
    parser.add_argument("--minutes", type=float, default=15, help="begin no further fault after so long")
    parser.add_argument("--nights", type=int, default=30, help="nights in a row, 0 leaves them out")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory(prefix="multitron-chaos-") as folder:
        return run(Path(folder), only=given.only, seed=given.seed, end=end, nights=given.nights)


def run(folder: Path, *, only: str, seed: int, end: float, nights: int) -> int:
    """Inject the faults and print the table; 1 when something was lost."""
    chosen = [fault for fault in FAULTS if only in fault.name]
    wrong = 0
    print("fault | times | seconds | lost | what an operator saw\n--- | --- | --- | --- | ---", flush=True)
    base = make_base(folder / "base")
    prepare_instance(load_shop(base))
    shutil.copytree(base, folder / "undisturbed", symlinks=True)
    status, said = night(folder / "undisturbed")
    if status:
        print(f"the undisturbed night failed: {said}", file=sys.stderr)
        return 1
    expected = digest(folder / "undisturbed")
    for number, fault in enumerate(chosen):
        if time.monotonic() > end:
            print(f"{fault.name} | 0 | - | - | not injected: no time left", flush=True)
            continue
        wrong += _inject(fault, folder, base, expected, random.Random(f"{seed} {number}"))
    if nights and not only:
        wrong += _nights_in_a_row(folder / "many", nights)
    print(f"\n{'nothing was lost' if not wrong else f'{wrong} LOST SOMETHING'}")
    return 1 if wrong else 0


def _inject(fault: Fault, folder: Path, base: Path, expected: dict[str, str], chance: random.Random) -> int:
    home = folder / "disturbed"
    shutil.copytree(base, home, symlinks=True)
    began, times, lost, saw = time.monotonic(), 0, "nothing", ""
    try:
        times, saw = fault.inject(home, chance)
        found = digest(home)
        different = [name for name in expected if found[name] != expected[name]]
        if different:
            lost = ", ".join(different)
    except NotPossibleError as reason:
        lost, saw = "-", f"skipped: {reason}"
    except Exception as error:  # noqa: BLE001 (the other faults are still to be injected)
        lost, saw = "FAILED", f"{type(error).__name__}: {error}"
    shutil.rmtree(home, ignore_errors=True)
    seconds = time.monotonic() - began
    print(f"{fault.name} | {times} | {seconds:.0f} | {lost} | {' '.join(saw.split())[:300]}", flush=True)
    return lost not in ("nothing", "-")


def _nights_in_a_row(home: Path, nights: int) -> int:
    """Nights in one process, with housekeeping; memory, open files and the tables' size must stay flat."""
    import datetime as dt

    began = time.monotonic()
    make_base(home, sessions=1_000, items=200)
    settings: dict[str, Any] = {**SETTINGS, "tables": {"keep_days": 5}, "scoring": {"pi": ["0.50"], "k": 10}}
    first = load_shop(home).settings.calendar.first_day
    last = first + dt.timedelta(days=nights - 1)
    write_shop(home, Settings.model_validate({**settings, "calendar": {"first_day": first, "last_day": last}}))
    shutil.rmtree(home / "raw")
    shutil.rmtree(home / "lake")
    simulate(home / "raw", sessions=250 * nights, items=200, days=nights, first_day=first)
    prepare_instance(load_shop(home))
    status, said = finish(start(home, "--nights", str(nights)), timeout=900)
    if status:
        print(f"{nights} nights in a row | - | - | FAILED | {said}")
        return 1
    told = json.loads(said.splitlines()[-1])
    # The first third warms up: caches fill, and housekeeping has nothing to delete yet.
    early, late = told[nights // 3], told[-1]
    grown = {name: late[name] / max(early[name], 1e-9) for name in early}
    flat = grown["rss_mb"] < 1.25 and late["open_files"] <= early["open_files"] + 5 and grown["lists_mb"] < 1.6
    figures = ", ".join(f"{name} {early[name]:.1f} -> {late[name]:.1f}" for name in early)
    seconds = time.monotonic() - began
    print(f"{nights} nights in a row | {nights} | {seconds:.0f} | {'nothing' if flat else 'NOT FLAT'} | {figures}")
    return not flat


if __name__ == "__main__":
    sys.exit(main())
