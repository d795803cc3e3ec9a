"""The Dagster UI, clicked through: a materialization, a backfill of five pi, a failed gate, and what the pages say.

With MULTITRON_PICTURES=<folder> what is seen is kept as pictures; with MULTITRON_UI_HOME=<home> they show a copy of a
shop that `make demo` made, instead of the small shop of these tests.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'multitron-batch[dev]'")

from multitron_core.simulator.simulation import simulate
from orchestration.runtime.instance import prepare_instance
from orchestration.runtime.partitions import night_key
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop
from tests.orchestration.browser import PATIENCE, Browser, browser, chromium, dagster_ui
from tests.orchestration.conftest import ShopInTest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FIVE = ("0.00", "0.25", "0.50", "0.75", "1.00")
JOB = "/locations/multitron_batch/jobs/scoring"
WAY = ("ingestion", "training", "serving", "scoring", "publication", "tables")
FROM_UI = "dagster/from_ui"
UI_HOME = os.environ.get("MULTITRON_UI_HOME")
SHORT_TRAINING = {
    "preset": "demo",
    "gate_baseline": "popularity",
    "front_points": 5,
    "training": {"epochs": 6, "uniform_negatives": 32, "in_batch_negatives": 4},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with five preferences and a deployed model, whose last day is not scored yet."""
    chromium()
    home = tmp_path_factory.mktemp("ui") / "shop"
    if UI_HOME:
        shutil.copytree(UI_HOME, home, ignore=shutil.ignore_patterns("dagster"))
    else:
        write_small_shop(home)
    settings = load_shop(home).settings.model_dump()
    write_shop(home, Settings.model_validate({**settings, "scoring": {**settings["scoring"], "pi": FIVE}}))
    prepare_instance(load_shop(home))
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        shop = ShopInTest(home, instance)
        days = days_of(home)
        span = {"dagster/asset_partition_range_start": str(days[0]), "dagster/asset_partition_range_end": str(days[-1])}
        assert shop.run("ingestion", tags=span).success
        assert shop.run("training").success
        for day in (days[-3], days[-1]):
            assert shop.run("session_preparation", str(day)).success
        for pi in FIVE:
            assert shop.run("scoring", night_key(days[-3], pi)).success
    return home


def write_small_shop(home: Path) -> None:
    """Four simulated days, and a training of seconds."""
    settings = demo_settings()
    calendar = settings.calendar.model_copy(update={"last_day": settings.calendar.first_day + dt.timedelta(days=3)})
    changed = {"calendar": calendar, "model": SHORT_TRAINING, "triton": {"scorer": "in_process"}}
    write_shop(home, Settings.model_validate({**settings.model_dump(), **changed}))
    simulate(home / "raw", sessions=2400, items=300, days=4, first_day=calendar.first_day)


def days_of(home: Path) -> list:
    first, last = load_shop(home).settings.calendar.first_day, load_shop(home).settings.calendar.last_day
    assert last is not None
    return [first.fromordinal(day) for day in range(first.toordinal(), last.toordinal() + 1)]


@pytest.fixture(scope="module")
def seen(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with dagster_ui(home) as address, browser(address, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def launch(seen: Browser, pi: str | None = None) -> None:
    """Ask for the last day of the job `scoring` in its dialog; without a pi, for all of them."""
    seen.open(JOB)
    seen.page.get_by_role("button", name="Materialize all").click()
    dialog = seen.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Latest").click()
    if pi is None:
        dialog.get_by_role("button", name="All").last.click()
    else:
        dialog.get_by_text("Select a partition or create one").last.click()
        seen.text(pi).last.click()
        dialog.get_by_text("Launch runs to materialize").click(force=True)
    seen.sees("1 partition" if pi else "5 partitions")
    seen.picture("dialog_of_one_night" if pi else "dialog_of_five_preferences")
    dialog.get_by_role("button", name="Launch").click()


def ended(home: Path, day: str, runs: int) -> list[dg.DagsterRun]:
    """Wait until that many runs of a day have ended, in Dagster's own records."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        end = time.monotonic() + 5 * PATIENCE
        while True:
            found = instance.get_runs(dg.RunsFilter(tags={"dagster/partition/date": day, FROM_UI: "true"}))
            if len(found) == runs and all(run.is_finished for run in found):
                return list(found)
            assert time.monotonic() < end, [(run.tags, run.status) for run in found]
            time.sleep(0.5)


def test_the_graph_is_the_way_of_the_data(seen: Browser) -> None:
    seen.open("/asset-groups")
    seen.sees("ingestion", "training", "serving", "scoring", "publication", "tables")
    places = [seen.text(group).last for group in WAY]  # in the graph; the list beside it comes first
    left = [place.bounding_box()["x"] for place in places]  # type: ignore[index]
    assert left == sorted(left), dict(zip(WAY, left, strict=True))
    seen.picture("groups")
    seen.open("/locations/multitron_batch/asset-groups/scoring/lineage")
    seen.sees("scoring_sessions", "recommendations", "item_recommendations", "fallback_recommendations")
    seen.picture("scoring_group")


def test_a_materialization(seen: Browser, home: Path) -> None:
    seen.open("/assets/training_sessions")
    seen.sees("Owners", "data science", "Source code", "training.py", "Sessions of all ingested days", "how to read it")
    seen.page.get_by_role("button", name="Materialize").first.click()
    seen.sees("Launched run")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        end = time.monotonic() + PATIENCE
        while not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags={FROM_UI: "true"})):
            assert time.monotonic() < end
            time.sleep(0.5)
    seen.open("/assets/training_sessions")
    seen.sees("Row count", "vocabulary hash", "statistics", "items")
    seen.picture("training_sessions")


def test_a_backfill_of_five_preferences(seen: Browser, home: Path) -> None:
    day = str(days_of(home)[-1])
    launch(seen)
    runs = ended(home, day, 5)
    assert {run.tags["dagster/partition/pi"] for run in runs} == set(FIVE)
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    released = load_shop(home).lake().publications("recommendations").filter(run_date=days_of(home)[-1])
    assert released["pi"].sort().to_list() == list(FIVE)
    seen.open("/runs")
    seen.sees("Success")
    seen.picture("backfill")
    seen.open(f"/assets/recommendations?view=partitions&partition={day}%7C0.50")
    seen.sees("Materialized", "sample", "model version")
    seen.picture("recommendations_of_a_night")
    seen.open(f"/assets/published?view=partitions&partition={day}%7C0.50")
    seen.sees("recommendations: changes to the previous night", "share of common lists that changed")
    seen.picture("what_changed")


def test_a_failed_gate(seen: Browser, home: Path) -> None:
    day = days_of(home)[-1]
    settings = load_shop(home).settings.model_dump()
    write_shop(home, Settings.model_validate({**settings, "quality": {"min_overlap": 1.0}}))  # no list may change
    lake = load_shop(home).lake()
    before = lake.publications()
    launch(seen, "0.50")
    run = ended(home, str(day), 6)[0]
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert lake.publications().equals(before), "what was released stays; the new rows are seen by nobody"
    seen.open("/assets/recommendations?view=checks&checkDetail=like_the_night_before")
    seen.sees("blocking", "Failed", "reason", "what changed")
    seen.picture("failed_gate")
    seen.open(f"/runs/{run.run_id}")
    seen.sees("Failure")
    seen.picture("failed_run")


def test_pages_say_how_to_read_what_they_show(seen: Browser) -> None:
    seen.open("/assets/recommendations")
    seen.sees("session_id", "data engineering", "Triton", "scoring.py", "read_recommendations")
    seen.picture("recommendations")


def test_the_front_and_the_training_curves_are_pictures(seen: Browser) -> None:
    for asset, name in (("front", "front"), ("model", "curves")):
        seen.open(f"/assets/{asset}")
        seen.sees("[Show Markdown]")
        seen.text("[Show Markdown]").first.click()
        image = seen.page.get_by_role("dialog").locator("img")
        image.wait_for()
        assert image.evaluate("picture => picture.naturalWidth") > 400
        seen.picture(name)
