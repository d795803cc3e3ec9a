"""`make chaos` in small: two of its faults injected into a night of a tiny shop, and the report of lost rows."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from chaos.__main__ import inject, undisturbed
from chaos.faults import FAULTS, Fault, NotPossibleError

pytestmark = pytest.mark.slow
QUICK = ("kill -9 of the scoring run", "two nights started at once")


@pytest.fixture(scope="module")
def base(deployed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop before its last night."""
    home = tmp_path_factory.mktemp("chaos") / "base"
    shutil.copytree(deployed_home, home)
    return home


@pytest.fixture(scope="module")
def expected(base: Path) -> dict[str, str]:
    return undisturbed(base)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in QUICK], ids=lambda fault: fault.name)
def test_inject_loses_nothing(fault: Fault, base: Path, expected: dict[str, str]) -> None:
    outcome = inject(fault, base, expected, random.Random(0))
    assert not outcome.wrong, outcome.line


def test_inject_reports_every_table_of_a_skipped_night(base: Path, expected: dict[str, str]) -> None:
    assert set(expected.values()) & {"none"} == set()
    outcome = inject(Fault("nothing", lambda home, chance: (1, "")), base, expected, random.Random(0))
    assert outcome.wrong
    assert all(name in outcome.line for name in expected)


def test_inject_names_a_fault_that_is_not_possible(base: Path, expected: dict[str, str]) -> None:
    def impossible(home: Path, chance: random.Random) -> tuple[int, str]:
        raise NotPossibleError("no file system can be mounted")

    outcome = inject(Fault("a full disk", impossible), base, expected, random.Random(0))
    assert not outcome.wrong
    assert outcome.line.endswith("| - | skipped: no file system can be mounted")
