from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from multitron_core.errors import InputError
from orchestration.automation.rerun_commands import start_daemon_command, start_sensor_command, ui_command
from orchestration.automation.status import DAEMONS, SILENT_SECONDS, standstills, status
from orchestration.runtime.instance import instance_of, prepare_instance
from orchestration.shop.calendar import open_nights
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, ShopInTest, copied_shop

BEFORE, AFTER = (dt.datetime(2026, 3, 4, hour, tzinfo=dt.UTC) for hour in (3, 7))  # the third night's deadline is at 6


@pytest.fixture(scope="module")
def shop(deployed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopInTest]:
    """Three nights: one complete; one with a failed check at its second preference; one without events."""
    with copied_shop(deployed_home, tmp_path_factory.mktemp("status") / "shop") as shop:
        (shop.home / "raw" / f"events-{DAYS[2]}.csv").rename(shop.home / "late.csv")
        for day in DAYS[:2]:
            assert shop.run("ingestion", str(day)).success
        for pi in ("0.00", "0.50"):
            assert shop.score(DAYS[0], pi).success
        shop.change(quality={"min_lists": 0.0, "min_items": 0.0, "min_overlap": 0.0, "max_top_share": 1.0})
        assert shop.score(DAYS[1], "0.00").success
        shop.change(quality={})
        assert not shop.score(DAYS[1], "0.50").success, "fewer than half of the lists of the previous night"
        yield shop


def heartbeat(daemon: str, timestamp: float) -> Any:
    """A heartbeat as Dagster stores it; its class is private."""
    fields = {"daemon_id": "one", "daemon_type": daemon, "errors": [], "timestamp": timestamp}
    return dg.deserialize_value(json.dumps({"__class__": "DaemonHeartbeat", **fields}))


def states(shop: ShopInTest, now: dt.datetime) -> dict[dt.date, dict[str, tuple[str, str]]]:
    found = status(load_shop(shop.home), shop.instance, now=now)
    return {night.day: {each.pi: (each.state, each.why) for each in night.preferences} for night in found.nights}


def test_status_names_states_and_reasons(shop: ShopInTest) -> None:
    found = states(shop, AFTER)
    assert list(found) == sorted(DAYS, reverse=True)
    assert found[DAYS[0]] == {"0.00": ("published", ""), "0.50": ("published", "")}
    assert found[DAYS[1]]["0.00"][0] == "published"
    state, why = found[DAYS[1]]["0.50"]
    assert state == "failed"
    assert "like_the_night_before" in why
    state, why = found[DAYS[2]]["0.00"]
    assert (state, f"no table file of {DAYS[2]}" in why) == ("late", True)
    assert states(shop, BEFORE)[DAYS[2]]["0.00"][0] == "waiting"


def test_status_shows_days_from_first_to_last_night(shop: ShopInTest, tmp_path: Path) -> None:
    with copied_shop(shop.home, tmp_path / "copy") as copy:
        copy.change(night={"first_night": DAYS[1]})
        assert list(states(copy, AFTER)) == [DAYS[2], DAYS[1]]
        assert open_nights(load_shop(copy.home), AFTER) == [DAYS[1], DAYS[2]]
        copy.change(night={"first_night": DAYS[1], "last_night": DAYS[1]})
        assert list(states(copy, AFTER)) == open_nights(load_shop(copy.home), AFTER) == [DAYS[1]]


def test_status_fails_a_night_with_unreadable_rows(shop: ShopInTest, tmp_path: Path) -> None:
    with copied_shop(shop.home, tmp_path / "copy") as copy:
        lake = copy.lake
        lake.open("item_recommendations").delete(f"run_date = '{DAYS[0]}' AND pi = '0.00'")
        assert states(copy, AFTER)[DAYS[0]]["0.00"][0] == "published", "the pinned version still has them"
        pinned = lake.publications("item_recommendations").filter(run_date=DAYS[0], pi="0.00")["delta_version"].item()
        (copy.home / "lake" / "item_recommendations" / "_delta_log" / f"{pinned:020}.json").write_text("")
        state, why = states(copy, AFTER)[DAYS[0]]["0.00"]
        assert (state, "gone" in why or "cannot be read" in why) == ("failed", True)


def test_status_refuses_a_number_of_nights_below_1(shop: ShopInTest) -> None:
    with pytest.raises(InputError, match="number of nights"):
        status(load_shop(shop.home), shop.instance, nights=0)


def test_standstills_name_stopped_daemons_and_sensor(shop: ShopInTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    loaded = load_shop(shop.home)
    prepare_instance(loaded)
    with instance_of(loaded) as instance:
        daemon, sensor = standstills(loaded, instance)
        assert "no heartbeat yet" in daemon.why
        assert ui_command(loaded) in daemon.commands[0]
        assert daemon.commands[1] == start_daemon_command(loaded)
        assert sensor.why == "the sensor `nights` is stopped"
        assert sensor.commands == (start_sensor_command(loaded, "nights"),)
        for ago, alive in ((10.0, True), (SILENT_SECONDS + 10.0, False)):
            for name in DAEMONS:
                instance.add_daemon_heartbeat(heartbeat(name, time.time() - ago))
            *daemons, last = standstills(loaded, instance)
            assert ["no heartbeat since" in each.why for each in daemons] == [True] * (not alive)
            assert last == sensor
