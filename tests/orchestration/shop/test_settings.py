from __future__ import annotations

import datetime as dt

import pytest
from pydantic import ValidationError

from multitron_core.errors import InputError
from multitron_core.lake.night_comparison import Thresholds
from orchestration.shop.settings import (
    CodeSettings,
    NightSettings,
    OwnerSettings,
    Settings,
    demo_settings,
    server_addresses,
)

CHANNELS = {
    "newsletter": {"owner": "crm@example.com", "pi": "0.37", "k": 10, "exclude_items": [7, "x y"]},
    "product_page": {
        "owner": "shop@example.com",
        "table": "item_recommendations",
        "objective": "order_density",
        "max_click_recall_loss": 0.05,
    },
}


def demo_with(**sections: object) -> Settings:
    """The demo's settings, with other sections in place of some."""
    return Settings.model_validate({**demo_settings().model_dump(), **sections})


def test_settings_preferences_include_those_of_channels() -> None:
    settings = demo_with(channels=CHANNELS)
    assert settings.preferences == ("0.00", "0.25", "0.37", "0.50", "0.75", "1.00")
    assert [channel.exclude_items for channel in settings.declared_channels] == [(7, "x y"), ()]
    assert demo_with(channels={}).preferences == settings.scoring.pi


def test_settings_nights_lie_within_the_calendar() -> None:
    calendar = {"first_day": "2026-01-03", "last_day": "2026-01-08"}
    inside = demo_with(calendar=calendar, night={"first_night": "2026-01-05", "last_night": "2026-01-07"})
    assert (inside.first_night, inside.last_night) == (dt.date(2026, 1, 5), dt.date(2026, 1, 7))
    outside = demo_with(calendar=calendar, night={"first_night": "2026-01-01", "last_night": "2026-01-09"})
    assert (outside.first_night, outside.last_night) == (dt.date(2026, 1, 3), dt.date(2026, 1, 8))
    assert demo_with(calendar={"first_day": "2026-01-03"}, night={}).last_night == dt.date.max


def test_quality_settings_default_to_those_of_the_comparison() -> None:
    assert demo_settings().quality.thresholds() == Thresholds()
    assert demo_with(quality={"min_lists": 0.5}).quality.thresholds() == Thresholds(min_lists=0.5)


def test_night_settings_count_hours_from_the_end_of_the_day() -> None:
    night, day = NightSettings(begins_hours=1.5, deadline_hours=30), dt.date(2026, 3, 1)
    assert night.begins(day) == dt.datetime(2026, 3, 2, 1, 30, tzinfo=dt.UTC)
    assert night.deadline(day) == dt.datetime(2026, 3, 3, 6, tzinfo=dt.UTC)


def test_night_settings_refuse_a_deadline_before_the_begin() -> None:
    with pytest.raises(ValidationError, match="due before it begins"):
        NightSettings(begins_hours=6, deadline_hours=6)


def test_owner_settings_take_an_address_or_a_team() -> None:
    assert OwnerSettings(scoring="team:night shift").of("scoring") == "team:night shift"
    assert OwnerSettings(ingestion="team:data").of("a group without an owner") == "team:data"
    with pytest.raises(ValidationError, match="team:<name>"):
        OwnerSettings(scoring="night shift")
    assert CodeSettings().repository is None


@pytest.mark.parametrize("url", ["host", "host:0", "host:65536", "http://host:8001", "grpc://user:secret@host:8001"])
def test_server_addresses_refuse_what_is_not_host_and_port(url: str) -> None:
    assert server_addresses(("a-b.c:8001", "[::1]:8001")) == ("a-b.c:8001", "[::1]:8001")
    with pytest.raises(InputError, match="gRPC") as refusal:
        server_addresses(("host:8001", url))
    assert "secret" not in str(refusal.value)
