"""`make chaos` in small: two of its faults into a night of a tiny shop, and what it says of a fault that is felt."""

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
    """A shop whose last night is still to come; it has three, of random scores."""
    home = tmp_path_factory.mktemp("chaos") / "base"
    shutil.copytree(deployed_home, home)
    return home


@pytest.fixture(scope="module")
def expected(base: Path) -> dict[str, str]:
    return undisturbed(base)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in QUICK], ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, base: Path, expected: dict[str, str]) -> None:
    told = inject(fault, base, expected, random.Random(0))
    assert not told.wrong, told.line


def test_what_differs_is_seen(base: Path, expected: dict[str, str]) -> None:
    """A night that does nothing has lost every table."""
    assert set(expected.values()) & {"none"} == set()
    nothing = inject(Fault("nothing", lambda home, chance: (1, "")), base, expected, random.Random(0))
    assert nothing.wrong
    assert all(name in nothing.line for name in expected)


def test_a_fault_that_this_machine_does_not_allow_is_skipped_by_name(base: Path, expected: dict[str, str]) -> None:
    def impossible(home: Path, chance: random.Random) -> tuple[int, str]:
        raise NotPossibleError("no file system can be mounted here")

    told = inject(Fault("a full disk", impossible), base, expected, random.Random(0))
    assert not told.wrong
    assert told.line.endswith("| - | skipped: no file system can be mounted here")
