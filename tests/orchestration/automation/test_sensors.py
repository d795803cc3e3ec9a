from __future__ import annotations

import datetime as dt
import json
import os
import shlex
from pathlib import Path

import dagster as dg
import pytest

from multitron_core.errors import UnavailableError
from orchestration.automation.alerts import WEBHOOK_VARIABLE, Alert, Recipient, recipients
from orchestration.automation.night_steps import STEP_TAG
from orchestration.automation.run_history import failure_of
from orchestration.automation.sensors import DECISION_WAIT, deliver, failed_run_alerts, missing_alerts
from orchestration.shop.home import load_shop
from tests.orchestration.automation.conftest import MORNING, Webhook, execute, requests, waits
from tests.orchestration.conftest import DAYS, GRID, ShopInTest, switch_models

FIRST = DAYS[0]
ALERT = Alert("run_failed", "scoring failed", "2026-03-01|0.50", "no answer", "dagster x", id="run 1", run_id="1")


def quick_recipients() -> list[Recipient]:
    """The recipients of the environment, with pauses of 10 ms between attempts."""
    return recipients(first_pause=0.01)


def test_plan_takes_a_night_from_raw_files_to_completion(bare_shop: ShopInTest) -> None:
    ticks = []
    while requested := requests(bare_shop):
        ticks.append([(each.job_name, str(each.partition_key)) for each in requested])
        assert all(execute(bare_shop, requested))
    day = str(FIRST)
    assert ticks == [
        [("ingestion", day)],
        [("session_preparation", day)],
        [("scoring", f"{day}|{pi}") for pi in GRID],
        [("night_completion", day)],
    ]
    assert waits(bare_shop) == "every open night is complete"
    assert bare_shop.lake.read_recommendations("0.50")["run_date"].unique().to_list() == [FIRST]


def test_plan_waits_for_late_files_of_the_same_day(bare_shop: ShopInTest) -> None:
    while requested := requests(bare_shop):
        assert all(execute(bare_shop, requested))
    late = bare_shop.home / "raw" / f"events-{DAYS[1]}.csv"
    content = late.read_text()
    late.unlink()
    next_morning = MORNING + dt.timedelta(days=1)
    assert f"no table file of {DAYS[1]}" in waits(bare_shop, next_morning)
    assert not bare_shop.run("session_preparation", str(DAYS[1])).success, "refused by hand, too"
    assert bare_shop.lake.publications()["run_date"].unique().to_list() == [FIRST]
    late.write_text(content)
    assert "it may be incomplete" in waits(bare_shop, next_morning)
    os.utime(late, (0, 0))
    assert [each.job_name for each in requests(bare_shop, next_morning)] == ["ingestion"]


def test_plan_scores_a_night_by_the_model_deployed_within_it(bare_shop: ShopInTest, redeployed_home: Path) -> None:
    for _ in range(2):
        assert all(execute(bare_shop, requests(bare_shop)))
    first, *_ = requests(bare_shop)
    assert execute(bare_shop, [first]) == [True]
    switch_models(bare_shop, redeployed_home)
    while requested := requests(bare_shop):
        assert all(execute(bare_shop, requested)), [
            failure_of(bare_shop.instance, record.dagster_run.run_id)
            for record in bare_shop.instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        ]
    assert bare_shop.lake.publications()["model_version"].unique().to_list() == ["other"]


def test_plan_requests_the_same_run_under_the_same_key(bare_shop: ShopInTest) -> None:
    first, second = requests(bare_shop), requests(bare_shop)
    assert [each.run_key for each in first] == [each.run_key for each in second]
    assert all(each.tags[STEP_TAG] for each in first)


def test_deliver_loses_no_alert_while_the_webhook_fails(hook: Webhook) -> None:
    alerts = [(ALERT, "1"), (ALERT, "2"), (ALERT, "3")]
    hook.answers = [200] + [500] * 3
    assert deliver(alerts, "3", quick_recipients(), before="0", log=lambda _: None).cursor == "1"
    hook.answers = [500] * 3
    with pytest.raises(UnavailableError):
        deliver(alerts[1:], "3", quick_recipients(), before="1", log=lambda _: None)
    assert deliver(alerts[1:], "3", quick_recipients(), before="1", log=lambda _: None).cursor == "3"
    assert len(hook.received) == 3


def test_deliver_logs_alerts_without_a_recipient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)
    lines: list[str] = []
    assert deliver([(ALERT, "1")], "1", recipients(), before=None, log=lines.append).cursor == "1"
    assert "scoring failed" in lines[0]


def test_failed_run_alerts_report_a_run_once(bare_shop: ShopInTest, hook: Webhook) -> None:
    shop, start = load_shop(bare_shop.home), dt.datetime.now(dt.UTC)
    _, cursor = failed_run_alerts(shop, bare_shop.instance, None, start)
    file = bare_shop.home / "raw" / f"events-{FIRST}.csv"
    file.write_text(file.read_text().replace("T10", "Tx"))
    assert not bare_shop.run("ingestion", str(FIRST)).success
    now = dt.datetime.now(dt.UTC)
    assert failed_run_alerts(shop, bare_shop.instance, cursor, now)[0] == [], "it may still be retried"
    later = now + 2 * DECISION_WAIT
    alerts, cursor = failed_run_alerts(shop, bare_shop.instance, cursor, later)
    deliver(alerts, cursor, quick_recipients(), before=None, log=lambda _: None)
    (received,) = hook.received
    assert received["partition"] == str(FIRST)
    assert "180 of 182 lines are bad" in received["error"]
    words = shlex.split(received["command"])
    assert words[0] == f"MULTITRON_HOME={bare_shop.home}"
    assert (words[-2], words[-1]) == ("--partition", str(FIRST))
    assert failed_run_alerts(shop, bare_shop.instance, cursor, later + dt.timedelta(minutes=1))[0] == []


def test_failed_run_alerts_read_a_cursor_of_version_0_1(bare_shop: ShopInTest) -> None:
    shop, now = load_shop(bare_shop.home), dt.datetime.now(dt.UTC)
    assert not bare_shop.run("session_preparation", str(FIRST)).success, "nothing is ingested"
    (run,) = bare_shop.instance.get_runs()
    for run_ids, count in (([run.run_id], 0), ([], 1)):
        cursor = json.dumps({"since": now.isoformat(), "told": run_ids})
        alerts, after = failed_run_alerts(shop, bare_shop.instance, cursor, now + 2 * DECISION_WAIT)
        assert len(alerts) == count
        assert json.loads(after)["reported"] == [run.run_id]


def test_missing_alerts_report_a_late_night_and_its_completion(bare_shop: ShopInTest, hook: Webhook) -> None:
    bare_shop.ingest()
    assert bare_shop.score(FIRST, "0.00").success
    shop = load_shop(bare_shop.home)
    before, after = (dt.datetime(2026, 3, 2, hour, tzinfo=dt.UTC) for hour in (5, 7))  # the deadline is at 6
    assert missing_alerts(shop, bare_shop.instance, None, before) == []
    alerts = missing_alerts(shop, bare_shop.instance, None, after)
    cursor = alerts[-1][1]
    deliver(alerts, cursor, quick_recipients(), before=None, log=lambda _: None)
    (received,) = hook.received
    assert received["kind"] == "preferences_missing"
    assert received["partition"] == f"{FIRST}|0.50"
    assert "late" in received["error"]
    assert f"'{FIRST}|0.50'" in received["command"]
    assert missing_alerts(shop, bare_shop.instance, cursor, after) == []
    assert bare_shop.score(FIRST, "0.50").success
    ((alert, _),) = missing_alerts(shop, bare_shop.instance, cursor, after)
    assert alert.kind == "night_complete"
