"""One running UI of a shop: its sockets, a backfill from the shell, and the pages, used in a browser.

MULTITRON_PICTURES=<folder> saves screenshots. With MULTITRON_UI_HOME=<home> they show a copy of a shop made by
`make demo`, instead of the small shop of these tests.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from multitron_core.simulator.simulation import simulate
from orchestration.automation.rerun_commands import WORKSPACE
from orchestration.runtime.instance import prepare_instance
from orchestration.runtime.partitions import night_key
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop
from tests.orchestration.browser import PATIENCE, ROOT, Browser, RunningUI, browser, chromium, dagster_ui
from tests.orchestration.conftest import ShopInTest
from tests.orchestration.sockets import LOOPBACK, descendants, listening

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FIVE = ("0.00", "0.25", "0.50", "0.75", "1.00")
JOB = "/locations/multitron_batch/jobs/scoring"
GROUPS = ("ingestion", "training", "serving", "scoring", "publication", "tables")
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
    """A shop with a deployed model and five preferences; a night is scored at pi 0.50, the last one prepared."""
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
        assert shop.run("scoring", night_key(days[-3], "0.50")).success
    return home


def write_small_shop(home: Path) -> None:
    """Write four simulated days, and settings of a training that takes seconds."""
    settings = demo_settings()
    calendar = settings.calendar.model_copy(update={"last_day": settings.calendar.first_day + dt.timedelta(days=3)})
    changed = {"calendar": calendar, "model": SHORT_TRAINING, "triton": {"scorer": "in_process"}}
    write_shop(home, Settings.model_validate({**settings.model_dump(), **changed}))
    simulate(home / "raw", sessions=2400, items=300, days=4, first_day=calendar.first_day)


def days_of(home: Path) -> list[dt.date]:
    """The days of the calendar of a shop."""
    first, last = load_shop(home).settings.calendar.first_day, load_shop(home).settings.calendar.last_day
    assert last is not None
    return [first.fromordinal(day) for day in range(first.toordinal(), last.toordinal() + 1)]


@pytest.fixture(scope="module")
def ui(home: Path) -> Iterator[RunningUI]:
    with dagster_ui(home) as running:
        yield running


@pytest.fixture(scope="module")
def page(ui: RunningUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium()
    with browser(ui.address, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def launch(page: Browser, pi: str | None = None) -> None:
    """Launch the last day of the job `scoring` in its dialog; at all preferences for None."""
    page.open(JOB)
    page.page.get_by_role("button", name="Materialize all").click()
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Latest").click()
    if pi is None:
        dialog.get_by_role("button", name="All").last.click()
    else:
        dialog.get_by_text("Select a partition or create one").last.click()
        page.text(pi).last.click()
        dialog.get_by_text("Launch runs to materialize").click(force=True)
    page.wait_for("1 partition" if pi else "5 partitions")
    page.picture("dialog_of_one_night" if pi else "dialog_of_five_preferences")
    dialog.get_by_role("button", name="Launch").click()


def finished(home: Path, runs: int, tags: dict[str, str]) -> list[dg.DagsterRun]:
    """Wait until so many runs with these tags have finished, and return them, newest first."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        end = time.monotonic() + 5 * PATIENCE
        while True:
            found = instance.get_runs(dg.RunsFilter(tags=tags))
            if len(found) == runs and all(run.is_finished for run in found):
                return list(found)
            assert time.monotonic() < end, [(run.tags, run.status) for run in found]
            time.sleep(0.5)


def test_ui_listens_on_loopback_only(ui: RunningUI) -> None:
    processes = descendants(ui.process_id)
    commands = [Path(f"/proc/{each}/cmdline").read_text() for each in processes]
    for part in ("webserver", "daemon", "grpc"):
        assert any(part in command for command in commands), f"no {part} among {commands}"
    found = listening(processes)
    assert found, "the UI at least listens"
    assert found <= LOOPBACK


def test_backfill_command_starts_one_run_per_partition(ui: RunningUI, home: Path) -> None:
    """The command of the runbook: the daemon starts a run per (night, pi)."""
    days = days_of(home)
    keys = [str(night_key(days[-3], "0.00")), str(night_key(days[-1], "1.00"))]
    dagster = str(Path(sys.executable).with_name("dagster"))
    words = ["job", "backfill", "-j", "scoring", "--noprompt", "--partitions", ",".join(keys), "-w", str(WORKSPACE)]
    environment = {**os.environ, **prepare_instance(load_shop(home)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([dagster, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (backfill,) = re.findall(r"backfill job `(\w+)`", done.stdout)
    runs = finished(home, len(keys), {"dagster/backfill": backfill})
    assert {run.tags["dagster/partition"] for run in runs} == set(keys)
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    released = load_shop(home).lake().publications("recommendations").select("run_date", "pi").rows()
    assert {f"{day}|{pi}" for day, pi in released} == {*keys, str(night_key(days[-3], "0.50"))}


def test_lineage_shows_the_groups_from_left_to_right(page: Browser) -> None:
    page.open("/asset-groups")
    page.wait_for("ingestion", "training", "serving", "scoring", "publication", "tables")
    places = [page.text(group).last for group in GROUPS]  # the last one is in the graph, the first one in the list
    left = [place.bounding_box()["x"] for place in places]  # type: ignore[index]
    assert left == sorted(left), dict(zip(GROUPS, left, strict=True))
    page.picture("groups")
    page.open("/locations/multitron_batch/asset-groups/scoring/lineage")
    page.wait_for("scoring_sessions", "recommendations", "item_recommendations", "fallback_recommendations")
    page.picture("scoring_group")


def test_asset_page_materializes_an_asset(page: Browser, home: Path) -> None:
    page.open("/assets/training_sessions")
    page.wait_for(
        "Owners", "data science", "Source code", "training.py", "Sessions of all ingested days", "how to read it"
    )
    page.page.get_by_role("button", name="Materialize").first.click()
    page.wait_for("Launched run")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        end = time.monotonic() + PATIENCE
        while not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags={FROM_UI: "true"})):
            assert time.monotonic() < end
            time.sleep(0.5)
    page.open("/assets/training_sessions")
    page.wait_for("Row count", "vocabulary hash", "statistics", "items")
    page.picture("training_sessions")


def test_dialog_backfills_five_preferences(page: Browser, home: Path) -> None:
    day = str(days_of(home)[-1])
    launch(page)
    runs = finished(home, 5, {"dagster/partition/date": day, FROM_UI: "true"})
    assert {run.tags["dagster/partition/pi"] for run in runs} == set(FIVE)
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    released = load_shop(home).lake().publications("recommendations").filter(run_date=days_of(home)[-1])
    assert released["pi"].sort().to_list() == list(FIVE)
    page.open("/runs")
    page.wait_for("Success")
    page.picture("backfill")
    page.open(f"/assets/recommendations?view=partitions&partition={day}%7C0.50")
    page.wait_for("Materialized", "sample", "model version")
    page.picture("recommendations_of_a_night")
    page.open(f"/assets/published?view=partitions&partition={day}%7C0.50")
    page.wait_for("recommendations: changes to the previous night", "share of common lists that changed")
    page.picture("what_changed")


def test_failed_check_releases_nothing_and_is_shown(page: Browser, home: Path) -> None:
    day = days_of(home)[-1]
    settings = load_shop(home).settings.model_dump()
    write_shop(home, Settings.model_validate({**settings, "quality": {"min_overlap": 1.0}}))  # refuses any changed list
    lake = load_shop(home).lake()
    before = lake.publications()
    launch(page, "0.50")
    run = finished(home, 6, {"dagster/partition/date": str(day), FROM_UI: "true"})[0]
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert lake.publications().equals(before), "released rows stay; the new rows are not released"
    page.open("/assets/recommendations?view=checks&checkDetail=like_the_night_before")
    page.wait_for("blocking", "Failed", "reason", "what changed")
    page.picture("failed_gate")
    page.open(f"/runs/{run.run_id}")
    page.wait_for("Failure")
    page.picture("failed_run")


def test_asset_page_describes_the_columns(page: Browser) -> None:
    page.open("/assets/recommendations")
    page.wait_for("session_id", "data engineering", "Triton", "scoring.py", "read_recommendations")
    page.picture("recommendations")


def test_asset_pages_show_front_and_curves_as_pictures(page: Browser) -> None:
    for asset, name in (("front", "front"), ("model", "curves")):
        page.open(f"/assets/{asset}")
        page.wait_for("[Show Markdown]")
        page.text("[Show Markdown]").first.click()
        image = page.page.get_by_role("dialog").locator("img")
        image.wait_for()
        assert image.evaluate("picture => picture.naturalWidth") > 400
        page.picture(name)
