"""`make chaos`: every fault into a night of a small shop, and a table of what came of it.

    python -m chaos [--only <parts of names>] [--seed 1] [--minutes 15] [--nights 30]

The exit status is 1 when a table differs from an undisturbed night's, or a fault was not injected in time.
"""

from __future__ import annotations

import argparse
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
    parser.add_argument("--only", default="", help="only faults whose name has one of these in it: kill,disk")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments and places")
    parser.add_argument("--minutes", type=float, default=15, help="begin nothing further after so long")
    parser.add_argument("--nights", type=int, default=30, help="nights in a row, 0 leaves them out")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    logging.getLogger("serving").setLevel(logging.ERROR)  # that a model is refused, or scored here, is wanted
    with tempfile.TemporaryDirectory(prefix="multitron-chaos-") as folder:
        return run(Path(folder), only=given.only, seed=given.seed, end=end, nights=given.nights)


def run(folder: Path, *, only: str, seed: int, end: float, nights: int) -> int:
    """Inject the faults and print the table; 1 when something was lost."""
    wanted = only.split(",")
    chosen = [fault for fault in FAULTS if _named(fault.name, wanted)]
    wrong = left = 0
    base = make_base(folder / "base")
    expected = undisturbed(base)
    print("fault | times | seconds | lost | what an operator saw\n--- | --- | --- | --- | ---", flush=True)
    for fault in chosen:
        if time.monotonic() > end:
            left += 1
            print(f"{fault.name} | 0 | - | - | not injected: no time left", flush=True)
            continue
        told = inject(fault, base, expected, random.Random(f"{seed} {fault.name}"))
        wrong += told.wrong
        print(told.line, flush=True)
    if nights and _named("nights in a row", wanted):
        if time.monotonic() > end:
            left += 1
            print(f"{nights} nights in a row | 0 | - | - | not begun: no time left")
        else:
            wrong += _nights_in_a_row(folder / "many", nights)
    print(f"\n{f'{wrong} LOST SOMETHING' if wrong else f'{left} NOT INJECTED' if left else 'nothing was lost'}")
    return 1 if wrong or left else 0


def _named(name: str, wanted: Sequence[str]) -> bool:
    return any(part.strip() in name for part in wanted)


@dataclass(frozen=True)
class Told:
    """What came of a fault: a line of the table, and whether the tables are not what they should be."""

    line: str
    wrong: bool


def undisturbed(base: Path) -> dict[str, str]:
    """What readers get of an undisturbed night of a shop: `digest`.

    Raises:
        RuntimeError: the night fails.
    """
    prepare_instance(load_shop(base))
    home = base.with_name("undisturbed")
    shutil.copytree(base, home, symlinks=True)
    status, said = night(home)
    if status:
        raise RuntimeError(f"the undisturbed night failed: {said}")
    return digest(home)


def inject(fault: Fault, base: Path, expected: dict[str, str], chance: random.Random) -> Told:
    """Inject a fault into the night of a copy of a shop.

    Args:
        fault: the fault.
        base: home of the shop, its night still to come.
        expected: `undisturbed(base)`.
        chance: gives the moments and places.
    """
    home = base.with_name("disturbed")
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
    line = f"{fault.name} | {times} | {seconds:.0f} | {lost} | {' '.join(saw.split())[:300]}"
    return Told(line, lost not in ("nothing", "-"))


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
    figures = ", ".join(f"{name} {early[name]:.4g} -> {late[name]:.4g}" for name in early)
    seconds = time.monotonic() - began
    print(f"{nights} nights in a row | {nights} | {seconds:.0f} | {'nothing' if flat else 'NOT FLAT'} | {figures}")
    return not flat


if __name__ == "__main__":
    sys.exit(main())
