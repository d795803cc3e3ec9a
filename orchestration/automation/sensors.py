"""What starts a night, what starts a training out of turn, and what tells an operator.

Sensors are off until somebody turns them on, as the schedules are. Their memory is a cursor and the run keys; what is
to be done they read from the tables at each look.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from multitron_core.errors import MultitronError
from orchestration.assets.monitoring import DECAYED, MODEL_VERSION
from orchestration.automation.alerts import Alert, recipients, send_to_all
from orchestration.automation.night import published_rows, read_night
from orchestration.automation.night_steps import SENSOR, completion_step, decide, next_steps
from orchestration.automation.rerun_commands import rerun_command_of
from orchestration.automation.run_history import WILL_RETRY_TAG, failure_of, job_of, partition_run
from orchestration.automation.status import night_status
from orchestration.runtime.resources import ShopResource
from orchestration.shop.calendar import open_nights
from orchestration.shop.home import Shop

SECONDS = 30
"""Between two looks."""

LOOK_BACK = dt.timedelta(minutes=15)
"""A look at failed runs begins so long before the last one: a run may be told some time after it failed."""

RETRY_IS_COMING, VERDICT_IS_COMING = dt.timedelta(minutes=10), dt.timedelta(seconds=20)
"""So long a failed run is not told while the instance is to start it again, or has not said whether it will."""

RETRIES = [str(number) for number in range(1, 20)]
DELIVERY_SECONDS = 25.0
"""Seconds after which a tick leaves further alerts to the next one: Dagster ends a tick after 60 s."""


def sensors(jobs_by_name: dict[str, dg.JobDefinition]) -> list[dg.SensorDefinition]:
    """The sensors of a shop."""

    @dg.sensor(
        name=SENSOR,
        jobs=[jobs_by_name[name] for name in ("ingestion", "session_preparation", "scoring", "night_completion")],
        minimum_interval_seconds=SECONDS,
        description=(
            "Takes every open night a step further: its events when their files are in, its sessions once, a scoring "
            "run for each pi, the completion. Waits for what is late, and never takes another day's in its place."
        ),
    )
    def night_sensor(context: dg.SensorEvaluationContext, shop_resource: ShopResource) -> dg.SensorResult:
        return _sensor_result(*plan(shop_resource.load(), context.instance, _now()))

    @dg.sensor(
        name="decayed_model",
        job=jobs_by_name["training"],
        minimum_interval_seconds=SECONDS,
        description=(
            "Trains out of turn, once for each live model, when the last `live_front` says that the model has decayed "
            "beyond max_decay of shop.toml."
        ),
    )
    def decayed_model(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        event = context.instance.get_latest_materialization_event(dg.AssetKey("live_front"))
        if event is None or event.asset_materialization is None:
            return _sensor_result([], ["the live model has not been measured on a night yet"])
        metadata = event.asset_materialization.metadata
        version, decayed = str(metadata[MODEL_VERSION].value), bool(metadata[DECAYED].value)
        if not decayed:
            return _sensor_result([], [f"model {version} holds"])
        return _sensor_result([dg.RunRequest(run_key=f"decayed {version}", tags={"multitron/because": "decay"})], [])

    @dg.sensor(
        name="failed_runs",
        minimum_interval_seconds=SECONDS,
        description="Reports a run that failed for good: partition, error, the command that reruns it.",
    )
    def failed_runs(context: dg.SensorEvaluationContext, shop_resource: ShopResource) -> dg.SensorResult:
        alerts, cursor = failed_run_alerts(shop_resource.load(), context.instance, context.cursor, _now())
        return _deliver(context, alerts, cursor)

    @dg.sensor(
        name="missing_preferences",
        minimum_interval_seconds=SECONDS,
        description="Reports a night of which a pi is missing at the deadline, with the reason; and its completion.",
    )
    def missing_preferences(context: dg.SensorEvaluationContext, shop_resource: ShopResource) -> dg.SensorResult:
        alerts = missing_alerts(shop_resource.load(), context.instance, context.cursor, _now())
        return _deliver(context, alerts, alerts[-1][1] if alerts else context.cursor)

    return [night_sensor, decayed_model, failed_runs, missing_preferences]


def plan(shop: Shop, instance: dg.DagsterInstance, now: dt.datetime) -> tuple[list[dg.RunRequest], list[str]]:
    """The runs that the open nights need now, and what is waited for, a line each."""
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
                waits.append(f"{day}: {night.undelivered or 'nothing is deployed: run the job `training`'}")
    return requests, waits or ["every open night is complete"]


def failed_run_alerts(
    shop: Shop, instance: dg.DagsterInstance, cursor: str | None, now: dt.datetime
) -> tuple[list[tuple[Alert, str]], str]:
    """The runs that failed for good and were not told yet, each with the cursor behind it; and the last cursor.

    A run that the instance starts again is passed over: its successor speaks for it. The first look begins with what
    fails from then on.

    Args:
        shop: the shop.
        instance: where the runs are.
        cursor: of the look before: since when, and which runs of the last minutes were told.
        now: the time of this look.
    """
    remembered: dict[str, Any] = json.loads(cursor) if cursor else {"since": now.isoformat(), "told": []}
    begin = dt.datetime.fromisoformat(remembered["since"]) - (LOOK_BACK if cursor else dt.timedelta(0))
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=begin),
        order_by="update_timestamp",
        ascending=True,
    )
    there = {record.dagster_run.run_id for record in records}
    told = [run_id for run_id in remembered["told"] if run_id in there]
    found: list[tuple[Alert, str]] = []
    for record in records:
        run_id = record.dagster_run.run_id
        if run_id in told or _may_start_again(instance, record, now):
            continue
        told.append(run_id)
        found.append((_run_failed(shop, instance, record), json.dumps({"since": remembered["since"], "told": told})))
    return found, json.dumps({"since": now.isoformat(), "told": told})


def _may_start_again(instance: dg.DagsterInstance, record: dg.RunRecord, now: dt.datetime) -> bool:
    """Whether the instance has started a failed run again, or is about to."""
    run = record.dagster_run
    if instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id, "dagster/retry_number": RETRIES})):
        return True
    age = now - dt.datetime.fromtimestamp(record.end_time or now.timestamp(), dt.UTC)
    verdict = run.tags.get(WILL_RETRY_TAG)  # Dagster decides a moment after the run has failed
    return age < (RETRY_IS_COMING if verdict == "true" else VERDICT_IS_COMING if verdict is None else dt.timedelta(0))


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
    """What changed of the nights beyond their deadline: one that is not whole, once; and that it is after all.

    Each comes with the cursor that stands behind it: the days that were reported as not whole.
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
        stands = json.dumps(sorted(reported))
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
        found.append((alert, stands))
    return found


def _deliver(
    context: dg.SensorEvaluationContext, alerts: Iterable[tuple[Alert, str]], cursor: str | None
) -> dg.SensorResult:
    """Send alerts in order; the cursor follows what has arrived, so that none is lost while no recipient answers."""
    return deliver(alerts, cursor, before=context.cursor, log=context.log.warning)


def deliver(
    alerts: Iterable[tuple[Alert, str]],
    cursor: str | None,
    *,
    before: str | None,
    log: Callable[[str], None],
) -> dg.SensorResult:
    """Send alerts in order, and return the cursor behind the last one that arrived.

    Args:
        alerts: each with the cursor that stands behind it.
        cursor: behind all of them.
        before: the cursor before the first.
        log: receives every alert too, so that it is visible without a recipient, and every failure.

    Raises:
        MultitronError: no recipient takes the first alert; the tick counts as failed and is repeated.
    """
    everyone, stands, sent, failures = recipients(), before, 0, dict[str, None]()
    end = time.monotonic() + DELIVERY_SECONDS
    for alert, behind in alerts:
        if time.monotonic() > end:
            return _tick([f"{sent} alerts sent, more follow", *failures], stands)
        log(f"{alert.kind}: {alert.payload()['text']}")
        if everyone:
            try:
                failed = [str(error) for error in send_to_all(alert, everyone)]
            except MultitronError as error:
                if not sent:
                    raise
                return _tick([f"{sent} alerts sent, then: {error}", *failures], stands)
            for failure in failed:
                log(failure)
            failures |= dict.fromkeys(failed)
        stands, sent = behind, sent + 1
    where = "sent" if everyone else "logged here only, no recipient is set"
    return _tick([f"{sent} alerts {where}" if sent else "nothing to tell", *failures], cursor or stands)


def _tick(lines: list[str], cursor: str | None) -> dg.SensorResult:
    return dg.SensorResult(skip_reason="\n".join(lines), cursor=cursor)


def _sensor_result(requests: list[dg.RunRequest], waits: list[str]) -> dg.SensorResult:
    return dg.SensorResult(run_requests=requests) if requests else dg.SensorResult(skip_reason="\n".join(waits))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
