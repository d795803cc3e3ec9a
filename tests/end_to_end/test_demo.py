"""The shop that the demo makes, with the real Triton server, tables and Dagster jobs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from multitron_core.baselines.counts import popularity
from multitron_core.baselines.evaluation import evaluate_baselines
from multitron_core.lake.lake import Lake
from multitron_core.sessions.prepare import PreparedSessions
from orchestration.cli.app import main
from orchestration.shop import models
from orchestration.shop.home import load_shop
from tests.documentation import blocks
from tests.end_to_end.conftest import FRONT_POINTS, GRID, ROOT, environment, tables

pytestmark = pytest.mark.slow


def test_demo_prints_tables_metrics_and_the_next_command(demo: tuple[Path, str]) -> None:
    home, printed = demo
    for table in ("events", "recommendations", "published"):
        assert str(home / "lake" / table) in printed
    for pi in GRID:
        assert re.search(rf"^  {pi} +\d+ +0\.\d{{4}} +0\.\d{{4}} +0\.\d{{4}}", printed, re.MULTILINE), pi
    assert printed.count("top 5 items") == 3
    picture = Path(re.search(r"The front: (\S+)", printed).group(1))  # type: ignore[union-attr]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "make ui" in printed


def test_demo_releases_complete_lists(demo: tuple[Path, str]) -> None:
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


def test_demo_accounts_for_every_line(demo: tuple[Path, str]) -> None:
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


def test_demo_trains_a_model_better_than_popularity(demo: tuple[Path, str]) -> None:
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


def test_dagster_loads_the_workspace_and_makes_a_partition(copied_demo: Path) -> None:
    home = copied_demo
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
def test_readme_recipes_read_the_lists(demo: tuple[Path, str], tool: str) -> None:
    home, _ = demo
    text = (ROOT / "README.md").read_text()
    block = re.search(rf"<!-- test: {tool} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert block, f"README.md has no recipe for {tool}"
    names: dict[str, Any] = {}
    exec(block.group(1).replace("var/demo", str(home)), names)  # from the README of this repository
    lists = names["lists"].pl() if tool == "duckdb" else names["lists"]
    expected = tables(home)["0.50"]
    if tool == "duckdb":
        expected = expected.filter(pl.col("rank") <= 5)
        assert set(lists["pi"]) == {"0.50"}
    assert lists.height == expected.height
    assert lists.sort("session_id", "rank")["item_id"].equals(expected.sort("session_id", "rank")["item_id"])


def test_documented_commands_succeed(copied_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block that is marked `run`; `multitron` in this process, whose imports are done."""
    home = copied_demo
    for name, text in environment(home).items():
        monkeypatch.setenv(name, text)
    monkeypatch.chdir(ROOT)
    model = models.newest(load_shop(home)).name
    for block in blocks():
        for command in block.commands if block.marker == "run" else ():
            program, *words = shlex.split(command.replace("var/demo", str(home)).replace("<model>", model))
            if program == ".venv/bin/multitron":
                result = CliRunner().invoke(main, words, prog_name="multitron")
                status, out, errors = result.exit_code, result.stdout, result.stderr
            else:
                assert program == ".venv/bin/python", command
                done = subprocess.run(
                    [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
                )
                status, out, errors = done.returncode, done.stdout, done.stderr
            assert status == 0, f"{block.page}: {command}\n{out}{errors}"
            assert out.strip(), command
