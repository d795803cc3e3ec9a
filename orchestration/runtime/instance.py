"""The local Dagster instance of a shop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg

from multitron_core.errors import InputError
from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.home import HOME_VARIABLE, Shop

_TEMPLATE = Path(__file__).with_name("dagster.yaml")


def prepare_instance(shop: Shop) -> dict[str, str]:
    """Make the shop's Dagster home, with our dagster.yaml unless one is there.

    Returns:
        The environment variables that Dagster processes of this shop need.
    """
    shop.dagster_home.mkdir(parents=True, exist_ok=True)
    config = shop.dagster_home / "dagster.yaml"
    if not config.exists():
        with atomic_file(config) as new:
            shutil.copyfile(_TEMPLATE, new)
    return {"DAGSTER_HOME": str(shop.dagster_home), HOME_VARIABLE: str(shop.home)}


def close_dead_runs(instance: dg.DagsterInstance, *, tag: str, value: str) -> int:
    """Report runs that a killed process left as running, so that the UI does not show them at work for ever.

    Args:
        instance: where the runs are.
        tag: only runs with this tag ...
        value: ... and value.

    Returns:
        How many there were.
    """
    unfinished = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    runs = instance.get_runs(dg.RunsFilter(statuses=unfinished, tags={tag: value}))
    for run in runs:
        instance.report_run_failed(run, message="The process of this run was killed; a later start found it dead.")
        # A killed run keeps its place in a pool, and the next run of that pool would wait for ever.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(runs)


def instance_of(shop: Shop) -> dg.DagsterInstance:
    """The Dagster instance of a shop, as DAGSTER_HOME says or in the shop's home.

    Raises:
        InputError: there is none.
    """
    home = os.environ.get("DAGSTER_HOME") or str(shop.dagster_home)
    if not os.path.exists(os.path.join(home, "dagster.yaml")):
        raise InputError("there is no Dagster instance", where=home, hint="run `make demo` or `make ui` once")
    return dg.DagsterInstance.from_config(home)
