"""Real runs of the asset `events`: its checks, and the materializations of late events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop
from tests.orchestration.conftest import ShopInTest

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3, 4)]


@pytest.fixture
def new_shop(tmp_path: Path) -> Iterator[ShopInTest]:
    """A shop without ingested days, with raw files of four days of 20 events each."""
    settings = {
        "source": {"path": "raw", "format": "table", "files": "events-{date}.csv", "max_reject_share": 0.5},
        "calendar": {"first_day": DAYS[0], "last_day": DAYS[-1]},
    }
    write_shop(tmp_path, Settings.model_validate(settings))
    (tmp_path / "raw").mkdir()
    for day in DAYS:
        write(tmp_path, day, 20)
    with dg.DagsterInstance.ephemeral() as instance:
        yield ShopInTest(tmp_path, instance)


def write(home: Path, day: dt.date, events: int, *others: str) -> None:
    lines = [f"s{number},{number},{day}T10:00:00Z,click" for number in range(events)]
    text = "\n".join(["session_id,item_id,ts,event_type", *lines, *others]) + "\n"
    (home / "raw" / f"events-{day}.csv").write_text(text)


def checks(result: Any) -> dict[str, Any]:
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_check_days_of_counts_volume_and_rejects(new_shop: ShopInTest) -> None:
    for day in DAYS[:3]:
        result = new_shop.run("ingestion", str(day))
        assert result.success
        assert all(found.passed for found in checks(result).values())
    write(new_shop.home, DAYS[3], 5, "rubbish")
    result = new_shop.run("ingestion", str(DAYS[3]))
    assert result.success, "these checks do not block: readers of the log decide"
    found = checks(result)
    assert found["counts_add_up"].passed
    assert not found["volume_is_usual"].passed
    assert "| 2026-03-04 | 5 | 20.0000 | False |" in found["volume_is_usual"].metadata["days"].value
    assert not found["rejects_are_few"].passed
    assert found["rejects_are_few"].severity == dg.AssetCheckSeverity.WARN
    assert found["rejects_are_few"].metadata["failed days"].value == [str(DAYS[3])]


def test_events_materialize_the_day_of_late_events(new_shop: ShopInTest) -> None:
    for day in DAYS[:2]:
        assert new_shop.run("ingestion", str(day)).success
    write(new_shop.home, DAYS[2], 20, f"s1,77,{DAYS[0]}T23:59:00Z,click")
    result = new_shop.run("ingestion", str(DAYS[2]))
    assert result.success
    materializations = result.asset_materializations_for_node("events")
    assert {each.partition for each in materializations} == {str(DAYS[0]), str(DAYS[2])}
    whole = next(each for each in materializations if each.partition == str(DAYS[2]))
    assert whole.metadata["days with late events"].value == [str(DAYS[0])]
    again = new_shop.run("ingestion", str(DAYS[2]))  # nothing is new
    assert {each.partition for each in again.asset_materializations_for_node("events")} == {str(DAYS[2])}
