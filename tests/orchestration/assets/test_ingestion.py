"""The asset `events` in real runs: its checks, and what late events leave behind."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop
from tests.orchestration.conftest import ShopInTest

DAYS = [dt.date(2026, 3, day) for day in (1, 2, 3, 4)]


@pytest.fixture
def young_shop(tmp_path: Path) -> Any:
    """A shop that has ingested nothing yet, with four days of 20 events."""
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


def test_a_days_counts_volume_and_rejects_are_checked(young_shop: ShopInTest) -> None:
    for day in DAYS[:3]:
        result = young_shop.run("ingestion", str(day))
        assert result.success
        assert all(found.passed for found in checks(result).values())
    write(young_shop.home, DAYS[3], 5, "rubbish")
    result = young_shop.run("ingestion", str(DAYS[3]))
    assert result.success, "readers of the log decide what an unusual day means to them"
    found = checks(result)
    assert found["counts_add_up"].passed
    assert not found["volume_is_usual"].passed
    assert "| 2026-03-04 | 5 | 20.0000 | False |" in found["volume_is_usual"].metadata["days"].value
    assert not found["rejects_are_few"].passed
    assert found["rejects_are_few"].severity == dg.AssetCheckSeverity.WARN
    assert found["rejects_are_few"].metadata["wrong"].value == [str(DAYS[3])]


def test_late_events_materialize_their_day_again(young_shop: ShopInTest) -> None:
    for day in DAYS[:2]:
        assert young_shop.run("ingestion", str(day)).success
    write(young_shop.home, DAYS[2], 20, f"s1,77,{DAYS[0]}T23:59:00Z,click")
    result = young_shop.run("ingestion", str(DAYS[2]))
    assert result.success
    told = result.asset_materializations_for_node("events")
    assert {each.partition for each in told} == {str(DAYS[0]), str(DAYS[2])}
    whole = next(each for each in told if each.partition == str(DAYS[2]))
    assert whole.metadata["days to be redone"].value == [str(DAYS[0])]
    again = young_shop.run("ingestion", str(DAYS[2]))  # nothing is new any more
    assert {each.partition for each in again.asset_materializations_for_node("events")} == {str(DAYS[2])}
