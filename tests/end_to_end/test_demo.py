"""The whole way, with the real server, the real tables and the real Dagster jobs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from multitron_core.baselines.counts import popularity
from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.lake.lake import Lake
from multitron_core.sessions.prepare import PreparedSessions
from orchestration.shop import models
from orchestration.shop.home import load_shop
from tests.documentation import blocks
from tests.end_to_end.conftest import FRONT_POINTS, ROOT, SIZE, environment, run_demo, small_shop

GRID = ("0.00", "0.25", "0.50", "0.75", "1.00")
pytestmark = pytest.mark.slow


def tables(home: Path) -> dict[str, pl.DataFrame]:
    """The lists of every preference, without what names the run."""
    lake = Lake(home / "lake")
    return {pi: lake.read_recommendations(pi).drop("model_version") for pi in GRID}


def test_it_prints_what_a_person_needs_next(demo: tuple[Path, str]) -> None:
    home, printed = demo
    for table in ("events", "recommendations", "published"):
        assert str(home / "lake" / table) in printed
    for pi in GRID:
        assert re.search(rf"^  {pi} +\d+ +0\.\d{{4}} +0\.\d{{4}} +0\.\d{{4}}", printed, re.MULTILINE), pi
    assert printed.count("best 5 items") == 3
    picture = Path(re.search(r"The front: (\S+)", printed).group(1))  # type: ignore[union-attr]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "make ui" in printed


def test_every_list_is_whole_and_published(demo: tuple[Path, str]) -> None:
    home, _ = demo
    lake = Lake(home / "lake")
    published = lake.publications("recommendations")
    assert published["pi"].sort().to_list() == list(GRID)
    for pi, rows in tables(home).items():
        sessions = rows["session_id"].n_unique()
        assert rows.height == 20 * sessions > 0
        assert published.filter(pi=pi)["rows"].item() == rows.height
        lists = rows.group_by("session_id").agg(pl.col("rank").sort(), pl.col("item_id").n_unique())
        assert lists["item_id"].unique().to_list() == [20]
        assert lists["rank"].to_list()[0] == list(range(1, 21))


def test_what_came_in_is_what_was_used_and_what_was_dropped(demo: tuple[Path, str]) -> None:
    home, _ = demo
    statistics = PreparedSessions.load(home / "sessions" / "training").statistics
    events = pl.read_delta(str(home / "lake" / "events"))
    lines = sum(pl.read_csv(path).height for path in sorted((home / "raw").glob("events-*.csv.gz")))
    counted = dict(
        pl.read_delta(str(home / "lake" / "ingestion")).group_by("what").agg(pl.col("count").sum()).iter_rows()
    )
    assert counted["in"] == lines
    assert counted["accepted"] == events.height
    assert counted["in"] == counted["accepted"] + counted.get("duplicate", 0) + counted.get("rejected", 0)
    for what in ("clicks", "orders"):
        used = statistics["train"][what] + statistics["test"][what]
        dropped = sum(count for reason, count in statistics["dropped"].items() if reason.startswith(what))
        assert statistics["in"][what] == used + dropped == events.filter(event_type=what[:-1]).height


def test_the_model_is_worth_its_training(demo: tuple[Path, str]) -> None:
    home, _ = demo
    folder = models.newest(load_shop(home))
    front = pl.read_parquet(folder / "front.parquet").sort("pi_order")
    prepared = PreparedSessions.load(home / "sessions" / "training")
    floor = evaluate_baselines(prepared.train, prepared.test, baselines={"popularity": popularity(prepared.train)})[
        "click_recall_20"
    ].item()
    assert front["click_recall_20"][0] > 1.5 * floor
    assert front.height == FRONT_POINTS
    assert front["order_loss"][-1] < front["order_loss"][0]
    assert front["click_loss"][-1] > front["click_loss"][0]
    lists = tables(home)
    assert not lists["0.00"]["item_id"].equals(lists["1.00"]["item_id"])


def test_again_it_changes_no_row(demo: tuple[Path, str]) -> None:
    home, _ = demo
    before = tables(home)
    result = run_demo(home, *SIZE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(rows.equals(before[pi]) for pi, rows in tables(home).items())
    assert Lake(home / "lake").partitions()["files"].to_list() == [1] * 5


def test_a_machine_without_the_server_says_so_and_scores_in_process_when_told(
    demo: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTITRON_TRITON_HOME", str(tmp_path / "nowhere"))
    home = tmp_path / "shop"
    shutil.copytree(demo[0], home)
    refused = run_demo(home, *SIZE)
    assert refused.returncode == 2
    for word in ("nowhere", "MULTITRON_TRITON_URL", "MULTITRON_SCORER=in_process"):
        assert word in refused.stderr, refused.stderr
    monkeypatch.setenv("MULTITRON_SCORER", "in_process")
    before = Lake(home / "lake").version("recommendations")
    made = run_demo(home, *SIZE)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "without a Triton server" in made.stdout
    assert Lake(home / "lake").version("recommendations") >= before + len(GRID), "every preference was scored again"
    with_server = tables(demo[0])
    assert all(rows.drop("score").equals(with_server[pi].drop("score")) for pi, rows in tables(home).items())


def killed_after(home: Path, said_last: str, seconds: float) -> None:
    """Start the demo and kill -9 it some seconds after it says what it begins."""
    command = [sys.executable, "-m", "orchestration.cli.demo", "--home", str(home), *SIZE]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while said_last not in said:
            letter = process.stdout.read(1)
            assert letter, f"it ended before {said_last!r}: {said}"
            said += letter
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)


def test_killed_it_goes_on_and_the_tables_are_the_same(demo: tuple[Path, str], tmp_path: Path) -> None:
    """One home, killed in each room of the house on its way; then the same command again."""
    home = small_shop(tmp_path / "shop")
    for said_last, seconds in (
        ("simulated shop", 0.5),
        ("job ingestion", 1.0),
        ("job training", 3.0),
        ("pi 0.50", 1.5),
    ):
        killed_after(home, said_last, seconds)
    result = run_demo(home, *SIZE)
    assert result.returncode == 0, result.stdout + result.stderr
    undisturbed = tables(demo[0])
    assert all(rows.equals(undisturbed[pi]) for pi, rows in tables(home).items())
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        states = {run.status for run in instance.get_runs()}
    assert states <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}, "a dead run is shown as running"


def test_the_workspace_loads_and_one_partition_is_made_from_the_shell(demo: tuple[Path, str]) -> None:
    home, _ = demo
    dagster = Path(sys.executable).with_name("dagster")
    validated = subprocess.run(
        [dagster, "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert validated.returncode == 0, validated.stderr
    before = Lake(home / "lake").version("recommendations")
    made = subprocess.run(
        [
            dagster,
            "asset",
            "materialize",
            "-m",
            "orchestration.definitions",
            "--select",
            "recommendations,published",
            "--partition",
            "2026-01-08|0.25",
        ],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert Lake(home / "lake").version("recommendations") == before + 1
    assert Lake(home / "lake").publications("recommendations").height == 5


@pytest.mark.parametrize("tool", ["polars", "duckdb", "lake"])
def test_the_recipes_of_the_readme(demo: tuple[Path, str], tool: str) -> None:
    home, _ = demo
    text = (ROOT / "README.md").read_text()
    block = re.search(rf"<!-- test: {tool} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert block, f"README.md has no recipe for {tool}"
    names: dict = {}
    exec(block.group(1).replace("var/demo", str(home)), names)  # our own text
    lists = names["lists"].pl() if tool == "duckdb" else names["lists"]
    expected = tables(home)["0.50"]
    if tool == "duckdb":
        expected = expected.filter(pl.col("rank") <= 5)
        assert set(lists["pi"]) == {"0.50"}
    assert lists.height == expected.height
    assert lists.sort("session_id", "rank")["item_id"].equals(expected.sort("session_id", "rank")["item_id"])


def test_the_commands_of_the_documentation(demo: tuple[Path, str], tmp_path: Path) -> None:
    """Each block that is marked `run`, on a copy of the shop, as a person would type it."""
    home = tmp_path / "shop"
    shutil.copytree(demo[0], home)
    model = models.newest(load_shop(home)).name
    for block in blocks():
        for command in block.commands if block.marker == "run" else ():
            text = command.replace("var/demo", str(home)).replace("<model>", model)
            words = shlex.split(text)
            program, *arguments = words
            known = {
                ".venv/bin/multitron": ["-m", "orchestration.cli"],
                ".venv/bin/python": [],
            }
            done = subprocess.run(
                [sys.executable, *known[program], *arguments],
                cwd=ROOT,
                env=environment(home),
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{block.page}: {command}\n{done.stdout}{done.stderr}"
            assert done.stdout.strip(), command
