"""The Dagster instance of a shop: created, opened, and cleared of runs whose process died."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg

from multitron_core.errors import InputError
from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.home import HOME_VARIABLE, Shop

TEMPLATE = Path(__file__).with_name("dagster.yaml")
"""The dagster.yaml of a new instance."""


def prepare_instance(shop: Shop) -> dict[str, str]:
    """Create the shop's Dagster home with a dagster.yaml, unless it has one.

    Returns:
        The environment variables that Dagster processes of this shop need.
    """
    shop.dagster_home.mkdir(parents=True, exist_ok=True)
    config = shop.dagster_home / "dagster.yaml"
    if not config.exists():
        with atomic_file(config) as new:
            shutil.copyfile(TEMPLATE, new)
    return {"DAGSTER_HOME": str(shop.dagster_home), HOME_VARIABLE: str(shop.home)}


def close_dead_runs(instance: dg.DagsterInstance, *, tag: str, value: str) -> int:
    """Mark runs as failed whose process was killed, so that the UI does not show them as running for ever.

    Args:
        instance: the instance with the runs.
        tag, value: only unfinished runs with this tag are marked.

    Returns:
        The number of runs that were marked.
    """
    unfinished = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    runs = instance.get_runs(dg.RunsFilter(statuses=unfinished, tags={tag: value}))
    for run in runs:
        instance.report_run_failed(
            run, message="The process of this run was killed; a later start found it unfinished."
        )
        # A killed run keeps its slot in a pool; without this the next run of the pool would wait for ever.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(runs)


def instance_of(shop: Shop) -> dg.DagsterInstance:
    """Open the Dagster instance of a shop: the one in DAGSTER_HOME if that is set, else the one in the shop's home.

    Raises:
        InputError: the folder has no dagster.yaml.
    """
    home = os.environ.get("DAGSTER_HOME") or str(shop.dagster_home)
    if not os.path.exists(os.path.join(home, "dagster.yaml")):
        raise InputError("no Dagster instance", where=home, hint="run `make demo` or `make ui` once")
    return dg.DagsterInstance.from_config(home)
