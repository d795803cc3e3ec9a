from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.automation.rerun_commands import start_daemon_command, start_sensor_command, ui_command
from orchestration.automation.status import DAEMONS, SILENT_SECONDS, standstills, status
from orchestration.cli.status import as_json, as_text, main
from orchestration.runtime.instance import instance_of, prepare_instance
from orchestration.shop.calendar import open_nights
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, ShopInTest, copied_shop

BEFORE, AFTER = (dt.datetime(2026, 3, 4, hour, tzinfo=dt.UTC) for hour in (3, 7))  # the third night's deadline is at 6


@pytest.fixture(scope="module")
def shop(deployed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopInTest]:
    """Three nights: one whole; one whose second half failed its check; one whose events are not there."""
    with copied_shop(deployed_home, tmp_path_factory.mktemp("status") / "shop") as shop:
        (shop.home / "raw" / f"events-{DAYS[2]}.csv").rename(shop.home / "late.csv")
        for day in DAYS[:2]:
            assert shop.run("ingestion", str(day)).success
        for pi in ("0.00", "0.50"):
            assert shop.score(DAYS[0], pi).success
        shop.change(quality={"min_lists": 0.0, "min_items": 0.0, "min_overlap": 0.0, "max_top_share": 1.0})
        assert shop.score(DAYS[1], "0.00").success
        shop.change(quality={})
        assert not shop.score(DAYS[1], "0.50").success, "fewer than half of the lists of the night before"
        yield shop


def heartbeat(daemon: str, timestamp: float) -> Any:
    """A heartbeat as Dagster stores it: its class has no public name."""
    fields = {"daemon_id": "one", "daemon_type": daemon, "errors": [], "timestamp": timestamp}
    return dg.deserialize_value(json.dumps({"__class__": "DaemonHeartbeat", **fields}))


def states(shop: ShopInTest, now: dt.datetime) -> dict[dt.date, dict[str, tuple[str, str]]]:
    told = status(load_shop(shop.home), shop.instance, now=now)
    return {night.day: {each.pi: (each.state, each.why) for each in night.preferences} for night in told.nights}


def test_it_says_which_are_published_failed_or_late_and_why(shop: ShopInTest) -> None:
    told = states(shop, AFTER)
    assert list(told) == sorted(DAYS, reverse=True)
    assert told[DAYS[0]] == {"0.00": ("published", ""), "0.50": ("published", "")}
    assert told[DAYS[1]]["0.00"][0] == "published"
    state, why = told[DAYS[1]]["0.50"]
    assert state == "failed"
    assert "like_the_night_before" in why
    state, why = told[DAYS[2]]["0.00"]
    assert (state, f"no table file of {DAYS[2]}" in why) == ("late", True)
    assert states(shop, BEFORE)[DAYS[2]]["0.00"][0] == "waiting"


def test_days_before_the_first_and_after_the_last_night_are_no_nights(shop: ShopInTest, tmp_path: Path) -> None:
    with copied_shop(shop.home, tmp_path / "copy") as copy:
        copy.change(night={"first_night": DAYS[1]})
        assert list(states(copy, AFTER)) == [DAYS[2], DAYS[1]]
        assert open_nights(load_shop(copy.home), AFTER) == [DAYS[1], DAYS[2]]
        copy.change(night={"first_night": DAYS[1], "last_night": DAYS[1]})
        assert list(states(copy, AFTER)) == open_nights(load_shop(copy.home), AFTER) == [DAYS[1]]


def test_rows_that_are_gone_are_not_called_published(shop: ShopInTest, tmp_path: Path) -> None:
    with copied_shop(shop.home, tmp_path / "copy") as copy:
        lake = copy.lake
        lake.open("item_recommendations").delete(f"run_date = '{DAYS[0]}' AND pi = '0.00'")
        assert states(copy, AFTER)[DAYS[0]]["0.00"][0] == "published", "the pinned version still has them"
        pinned = lake.publications("item_recommendations").filter(run_date=DAYS[0], pi="0.00")["delta_version"].item()
        (copy.home / "lake" / "item_recommendations" / "_delta_log" / f"{pinned:020}.json").write_text("")
        state, why = states(copy, AFTER)[DAYS[0]]["0.00"]
        assert (state, "gone" in why or "cannot be read" in why) == ("failed", True)


def test_the_forms_for_people_and_for_programs_say_the_same(shop: ShopInTest) -> None:
    told = status(load_shop(shop.home), shop.instance, now=AFTER)
    text, parsed = as_text(told), json.loads(as_json(told))
    assert parsed["late"] is True
    assert [night["day"] for night in parsed["nights"]] == [str(day) for day in sorted(DAYS, reverse=True)]
    for night in parsed["nights"]:
        assert night["day"] in text
        for each in night["preferences"]:
            assert each["pi"] in text
            assert each["why"] in text
            assert each["command"] in text


def test_the_command_checks_for_cron_and_says_when_no_daemon_runs(
    shop: ShopInTest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    prepare_instance(load_shop(shop.home))
    assert main(["--home", str(shop.home), "--nights", "2", "--check"]) == 1
    printed = capsys.readouterr().out
    assert "the Dagster daemon does not run" in printed
    said = load_shop(shop.home)
    for command in (start_daemon_command(said), start_sensor_command(said, "nights"), ui_command(said)):
        assert command in printed
    assert "not seen yet" in printed
    for ago, seen in ((10.0, True), (SILENT_SECONDS + 10.0, False)):
        with instance_of(said) as instance:
            for name in DAEMONS:
                instance.add_daemon_heartbeat(heartbeat(name, time.time() - ago))
            told = [each.why for each in standstills(said, instance)]
        assert [("does not run" in why, "not seen since" in why) for why in told[:-1]] == [(True, True)] * (not seen)
        assert told[-1] == "the sensor `nights` is off"
    assert main(["--home", str(shop.home), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["nights"]) == 3
    assert main(["--home", str(shop.home), "--nights", "0"]) == 2
    assert "no night is asked for" in capsys.readouterr().err
    assert main(["--home", str(shop.home / "nowhere")]) == 2
