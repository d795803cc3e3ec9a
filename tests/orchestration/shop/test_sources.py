from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from multitron_core.events.ingestion import ingest
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings
from orchestration.shop.sources import events_fingerprint, raw_source, session_gap

DAY = dt.date(2026, 3, 1)


def shop_with(home: Path, **source: object) -> Shop:
    settings = {"source": {"path": "raw", "format": "table", **source}, "calendar": {"first_day": DAY}}
    return Shop(home=home, settings=Settings.model_validate(settings))


def write_events(home: Path, events: int) -> None:
    lines = [f"s{number},{number},{DAY}T10:00:00Z,click" for number in range(events)]
    (home / "raw").mkdir(exist_ok=True)
    (home / "raw" / f"events-{DAY}.csv").write_text("\n".join(["session_id,item_id,ts,event_type", *lines]) + "\n")


def test_raw_source_is_that_of_the_settings(tmp_path: Path) -> None:
    source = raw_source(shop_with(tmp_path, max_reject_share=0.5, max_late_days=9, orders_required=False))
    assert (source.path, source.format) == (str(tmp_path / "raw"), "table")
    assert (source.max_reject_share, source.max_late_days, source.orders_required) == (0.5, 9, False)


@pytest.mark.parametrize(
    ("columns", "gap"),
    [
        ({}, None),
        ({"session_id": None, "user_id": "visitor", "session_gap": 20}, dt.timedelta(minutes=20)),
    ],
)
def test_session_gap_is_for_events_of_users(columns: dict[str, object], gap: dt.timedelta | None) -> None:
    assert session_gap(shop_with(Path(), columns=columns)) == gap


def test_events_fingerprint_changes_with_the_events(tmp_path: Path) -> None:
    shop = shop_with(tmp_path, files="events-{date}.csv")
    lake = shop.lake()
    assert events_fingerprint(lake, DAY) is None
    found = []
    for events in (3, 3, 4):
        write_events(tmp_path, events)
        ingest(raw_source(shop), lake, first=DAY, last=DAY)
        found.append(events_fingerprint(lake, DAY))
    assert found[0] is not None
    assert found[0] == found[1] != found[2]
    assert events_fingerprint(lake, DAY + dt.timedelta(days=1)) is None
