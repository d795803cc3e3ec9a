from __future__ import annotations

import datetime as dt

import pytest

from multitron_core.errors import InputError
from orchestration.runtime.partitions import night_key, night_of, partitions_of
from orchestration.shop.settings import Settings, demo_settings


def test_partitions_of_a_calendar_and_a_grid() -> None:
    partitions = partitions_of(demo_settings())
    assert partitions.days.get_partition_keys() == [f"2026-01-0{day}" for day in range(1, 9)]
    assert partitions.preferences.get_partition_keys() == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert len(partitions.nights.get_partition_keys()) == 40


def test_partitions_of_include_the_preferences_of_channels() -> None:
    channels = {"newsletter": {"owner": "crm@example.com", "pi": "0.37"}}
    settings = Settings.model_validate({**demo_settings().model_dump(), "channels": channels})
    assert "0.37" in partitions_of(settings).preferences.get_partition_keys()


def test_night_of_inverts_night_key() -> None:
    key = night_key(dt.date(2026, 1, 8), "0.50")
    assert key == "2026-01-08|0.50"
    assert night_of(key) == (dt.date(2026, 1, 8), "0.50")
    with pytest.raises(InputError, match="2026-01-08"):
        night_of("2026-01-08")
