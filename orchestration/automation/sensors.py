"""Sensors: they start the runs of the nights and extra trainings, and send alerts.

Sensors and schedules are stopped until an operator starts them. A sensor keeps a cursor and the run keys; everything
else it reads from the tables at each tick.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dagster as dg

from multitron_core.errors import MultitronError
from orchestration.assets.monitoring import DECAYED, MODEL_VERSION
from orchestration.automation.alerts import Alert, Recipient, recipients, send_to_all
from orchestration.automation.night import published_rows, read_night
from orchestration.automation.night_steps import SENSOR, completion_step, decide, next_steps
from orchestration.automation.rerun_commands import rerun_command_of
from orchestration.automation.run_history import WILL_RETRY_TAG, failure_of, job_of, partition_run
from orchestration.automation.status import night_status
from orchestration.runtime.resources import ShopResource
from orchestration.shop.calendar import open_nights
from orchestration.shop.home import Shop

SECONDS = 30
"""Minimum seconds between two ticks of a sensor."""

LOOK_BACK = dt.timedelta(minutes=15)
"""How far before the last tick a tick looks for failed runs: their alerts may have waited for a retry."""

RETRY_WAIT, DECISION_WAIT = dt.timedelta(minutes=10), dt.timedelta(seconds=20)
"""How long the alert of a failed run waits: for the retry that Dagster announced; for Dagster to decide on a retry."""

RETRY_NUMBERS = [str(number) for number in range(1, 20)]
"""Values of the tag dagster/retry_number that are searched for; max_retries of dagster.yaml is lower."""
DELIVERY_SECONDS = 25.0
"""Seconds after which a tick leaves further alerts to the next tick: Dagster ends a tick after 60 s."""


def sensors(jobs_by_name: dict[str, dg.JobDefinition]) -> list[dg.SensorDefinition]:
    """The sensors of a shop.

    Args:
        jobs_by_name: `jobs.jobs()`.
    """

    @dg.sensor(
        name=SENSOR,
        jobs=[jobs_by_name[name] for name in ("ingestion", "session_preparation", "scoring", "night_completion")],
        minimum_interval_seconds=SECONDS,
        description=(
            "Starts the next runs of every open night: ingestion when its files have arrived, session preparation, "
            "one scoring run per pi, the completion. Waits for late files; never uses another day's data instead."
        ),
    )
    def night_sensor(context: dg.SensorEvaluationContext, shop_resource: ShopResource) -> dg.SensorResult:
        return _sensor_result(*plan(shop_resource.load(), context.instance, _now()))

    @dg.sensor(
        name="decayed_model",
        job=jobs_by_name["training"],
        minimum_interval_seconds=SECONDS,
        description=(
            "Starts an extra training, once per live model, when the latest `live_front` reports a decay above "
            "max_decay of shop.toml."
        ),
    )
    def decayed_model(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        event = context.instance.get_latest_materialization_event(dg.AssetKey("live_front"))
        if event is None or event.asset_materialization is None:
            return _sensor_result([], ["the live model has not been measured on a night yet"])
        metadata = event.asset_materialization.metadata
        version, decayed = str(metadata[MODEL_VERSION].value), bool(metadata[DECAYED].value)
        if not decayed:
            return _sensor_result([], [f"model {version} has not decayed"])
        return _sensor_result([dg.RunRequest(run_key=f"decayed {version}", tags={"multitron/reason": "decay"})], [])

    @dg.sensor(
        name="failed_runs",
        minimum_interval_seconds=SECONDS,
        description="Sends an alert for each run that failed and is not retried: partition, error, re-run command.",
    )
    def failed_runs(context: dg.SensorEvaluationContext, shop_resource: ShopResource) -> dg.SensorResult:
        alerts, cursor = failed_run_alerts(shop_resource.load(), context.instance, context.cursor, _now())
        return _deliver(context, alerts, cursor)

    @dg.sensor(
        name="missing_preferences",
        minimum_interval_seconds=SECONDS,
        description="Sends an alert if a night lacks a pi at its deadline, with the reasons; and when it is complete.",
    )
    def missing_preferences(context: dg.SensorEvaluationContext, shop_resource: ShopResource) -> dg.SensorResult:
        alerts = missing_alerts(shop_resource.load(), context.instance, context.cursor, _now())
        return _deliver(context, alerts, alerts[-1][1] if alerts else context.cursor)

    return [night_sensor, decayed_model, failed_runs, missing_preferences]


def plan(shop: Shop, instance: dg.DagsterInstance, now: dt.datetime) -> tuple[list[dg.RunRequest], list[str]]:
    """The runs that the open nights need now.

    Args:
        shop: the shop.
        instance: where its runs are recorded.
        now: the present, with a time zone.

    Returns:
        The requests, and one line per step that waits, with its reason.
    """
    lake = shop.lake()
    published = published_rows(lake)
    requests, waits = [], []
    for day in open_nights(shop, now):
        night = read_night(shop, lake, day, published=published)
        steps = [completion_step(night, published)] if night.complete else next_steps(shop, night)
        decisions = decide(instance, steps, night, now)
        requests += [decision.request for decision in decisions if decision.request is not None]
        if not night.complete:
            waits += [f"{day}: {decision.why}" for decision in decisions if decision.request is None and decision.why]
            if not decisions:
                waits.append(f"{day}: {night.undelivered or 'no model is deployed: run the job `training`'}")
    return requests, waits or ["every open night is complete"]


def failed_run_alerts(
    shop: Shop, instance: dg.DagsterInstance, cursor: str | None, now: dt.datetime
) -> tuple[list[tuple[Alert, str]], str]:
    """Alerts for runs that failed and are not retried, one per run.

    A run that the instance retries has no alert; its last retry has. The first tick reports only runs that fail after
    it.

    Args:
        shop: the shop.
        instance: where its runs are recorded.
        cursor: JSON of the previous tick: its time, and the recent runs that are already reported; None at the first.
        now: the time of this tick.

    Returns:
        Each alert with the cursor to store once it is sent, and the cursor to store after all of them.
    """
    state: dict[str, Any] = json.loads(cursor) if cursor else {"since": now.isoformat(), "reported": []}
    begin = dt.datetime.fromisoformat(state["since"]) - (LOOK_BACK if cursor else dt.timedelta(0))
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=begin),
        order_by="update_timestamp",
        ascending=True,
    )
    recent = {record.dagster_run.run_id for record in records}
    before = state["told"] if "told" in state else state["reported"]  # cursors of version 0.1 have "told"
    reported = [run_id for run_id in before if run_id in recent]
    found: list[tuple[Alert, str]] = []
    for record in records:
        run_id = record.dagster_run.run_id
        if run_id in reported or _may_be_retried(instance, record, now):
            continue
        reported.append(run_id)
        found.append((_run_failed(shop, instance, record), json.dumps({"since": state["since"], "reported": reported})))
    return found, json.dumps({"since": now.isoformat(), "reported": reported})


def _may_be_retried(instance: dg.DagsterInstance, record: dg.RunRecord, now: dt.datetime) -> bool:
    """Whether the instance has retried a failed run, or may still do so."""
    run = record.dagster_run
    if instance.get_runs(
        dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id, "dagster/retry_number": RETRY_NUMBERS})
    ):
        return True
    age = now - dt.datetime.fromtimestamp(record.end_time or now.timestamp(), dt.UTC)
    decision = run.tags.get(WILL_RETRY_TAG)  # Dagster sets it shortly after the run has failed
    return age < (RETRY_WAIT if decision == "true" else DECISION_WAIT if decision is None else dt.timedelta(0))


def _run_failed(shop: Shop, instance: dg.DagsterInstance, record: dg.RunRecord) -> Alert:
    run = record.dagster_run
    failure, job = failure_of(instance, run.run_id), job_of(run)
    partition = partition_run(record).partition or None
    return Alert(
        kind="run_failed",
        title=f"{job} of {partition or 'the shop'} failed{f' in {failure.step}' if failure.step else ''}",
        partition=partition,
        error=failure.what,
        command=rerun_command_of(shop, run),
        id=f"run {run.run_id}",
        run_id=run.run_id,
    )


def missing_alerts(
    shop: Shop, instance: dg.DagsterInstance, cursor: str | None, now: dt.datetime
) -> list[tuple[Alert, str]]:
    """Alerts for open nights after their deadline: one when a night is incomplete, one when it is complete later.

    Args:
        shop: the shop.
        instance: where its runs are recorded.
        cursor: JSON list of the days that are reported as incomplete; None at the first tick.
        now: the time of this tick.

    Returns:
        Each alert with the cursor to store once it is sent.
    """
    reported = set(json.loads(cursor)) if cursor else set()
    lake = shop.lake()
    published = published_rows(lake)
    found: list[tuple[Alert, str]] = []
    for day in open_nights(shop, now):
        if now < shop.settings.night.deadline(day):
            continue
        status = night_status(shop, instance, day, now=now, published=published)
        if status.complete == (str(day) not in reported):
            continue
        reported ^= {str(day)}
        next_cursor = json.dumps(sorted(reported))
        if status.complete:
            alert = Alert(
                "night_complete", f"the night of {day} is complete", str(day), "", "", f"night {day} complete"
            )
        else:
            late = [preference for preference in status.preferences if preference.state != "published"]
            alert = Alert(
                kind="preferences_missing",
                title=f"{day}: {len(late)} of {len(status.preferences)} preferences are not published at the deadline",
                partition=", ".join(f"{day}|{preference.pi}" for preference in late),
                error="\n".join(f"pi {preference.pi} {preference.state}: {preference.why}" for preference in late),
                command="\n".join(dict.fromkeys(each.command for each in late if each.command)),
                id=f"night {day} missing",
            )
        found.append((alert, next_cursor))
    return found


def _deliver(
    context: dg.SensorEvaluationContext, alerts: Iterable[tuple[Alert, str]], cursor: str | None
) -> dg.SensorResult:
    """`deliver` within a tick."""
    return deliver(alerts, cursor, recipients(), before=context.cursor, log=context.log.warning)


def deliver(
    alerts: Iterable[tuple[Alert, str]],
    cursor: str | None,
    to: Sequence[Recipient],
    *,
    before: str | None,
    log: Callable[[str], None],
) -> dg.SensorResult:
    """Send alerts in order, and keep the cursor of the last one that arrived: no alert is lost while recipients fail.

    Args:
        alerts: each with the cursor to store once it is sent.
        cursor: to store after all of them; None for the cursor of the last alert.
        to: the recipients; without any, alerts are only logged.
        before: the cursor before the first alert.
        log: logs every alert, which is then visible without a recipient, and every failure.

    Raises:
        MultitronError: no recipient receives the first alert; Dagster marks the tick as failed, the next one retries.
    """
    reached, sent, failures = before, 0, dict[str, None]()
    end = time.monotonic() + DELIVERY_SECONDS
    for alert, next_cursor in alerts:
        if time.monotonic() > end:
            return _tick([f"{sent} alerts sent, the rest at the next tick", *failures], reached)
        log(f"{alert.kind}: {alert.payload()['text']}")
        if to:
            try:
                failed = [str(error) for error in send_to_all(alert, to)]
            except MultitronError as error:
                if not sent:
                    raise
                return _tick([f"{sent} alerts sent, then: {error}", *failures], reached)
            for failure in failed:
                log(failure)
            failures |= dict.fromkeys(failed)
        reached, sent = next_cursor, sent + 1
    outcome = "sent" if to else "logged only: no recipient is configured"
    return _tick([f"{sent} alerts {outcome}" if sent else "no alerts", *failures], cursor or reached)


def _tick(lines: list[str], cursor: str | None) -> dg.SensorResult:
    return dg.SensorResult(skip_reason="\n".join(lines), cursor=cursor)


def _sensor_result(requests: list[dg.RunRequest], waits: list[str]) -> dg.SensorResult:
    return dg.SensorResult(run_requests=requests) if requests else dg.SensorResult(skip_reason="\n".join(waits))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
