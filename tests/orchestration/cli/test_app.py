"""The command `multitron`: help, errors, and the JSON that scripts read."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from multitron_core.events.ingestion import ingest
from multitron_core.lake.lake import Lake
from multitron_core.simulator.simulation import simulate
from orchestration.cli import read as read_module
from orchestration.cli.app import main
from orchestration.shop import models
from orchestration.shop.home import load_shop
from orchestration.shop.settings import demo_settings
from orchestration.shop.sources import raw_source
from orchestration.shop.toml import write_shop
from tests.orchestration.conftest import DAYS, GRID, K, ShopInTest

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = sorted(main.commands)


def run(*arguments: str, home: Path | None = None) -> Result:
    extra = [] if home is None else ["--home", str(home)]
    return CliRunner().invoke(main, [*arguments, *extra], catch_exceptions=False)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands set these variables; they are restored after each test."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("MULTITRON_HOME", "")


@pytest.fixture(scope="module")
def unchanged_home(deployed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for commands that are refused; some of them prepare its Dagster instance first."""
    home = tmp_path_factory.mktemp("refused") / "shop"
    shutil.copytree(deployed_home, home)
    return home


def value(*arguments: str, home: Path) -> Any:
    """The parsed output of a command with --json."""
    result = run(*arguments, "--json", home=home)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_main_lists_every_command_with_a_full_sentence() -> None:
    text = run("--help").output
    for name in COMMANDS:
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
        assert line.endswith("."), line
        assert not line.endswith("..."), f"the help of {name} is cut"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help_has_valid_examples(name: str) -> None:
    text = run(name, "--help").output
    assert ("--json" in text) == (name != "ui")
    assert "--home" in text
    examples = [line.strip() for line in text.split("Examples:")[1].splitlines() if line.strip()]
    assert examples
    for line in examples:
        words = line.split(" | ")[0].split()
        assert words[:2] == ["multitron", name]
        main.commands[name].make_context(name, words[2:], resilient_parsing=True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nope",), "error: No such command 'nope'; hint: see `multitron --help`"),
        (("--nope",), "error: No such option '--nope'; hint: see `multitron --help`"),
        (("status", "more"), "error: Got unexpected extra argument (more); hint: see `multitron status --help`"),
        (("ui", "--port", "x"), "error: Invalid value for '--port': 'x' is not a valid integer; hint: see "
         "`multitron ui --help`"),
    ],
)  # fmt: skip
def test_main_reports_usage_errors_in_one_line(arguments: tuple[str, ...], error: str) -> None:
    result = CliRunner().invoke(main, arguments, prog_name="multitron")
    assert result.exit_code == 2
    assert result.stderr == f"{error}\n"
    assert result.stdout == ""


def test_main_redacts_secrets_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_SECRET", tmp_path.name)
    result = run("read", "--pi", "0.50", "--json", home=tmp_path)
    assert result.exit_code == 2
    assert "***" in result.stderr
    assert tmp_path.name not in result.output


@pytest.mark.slow
@pytest.mark.parametrize("module", ["orchestration.cli", "orchestration.cli.demo", "orchestration.cli.status"])
def test_modules_run_the_same_command(module: str) -> None:
    command = [] if module == "orchestration.cli" else [module.rpartition(".")[2]]
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith(" ".join(["Usage: multitron", *command]))


def test_main_stops_at_sigterm_as_at_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("SIGTERM did not interrupt the command")

    monkeypatch.setattr(read_module, "load_shop", stopped)  # a signal in the middle of a command
    before = signal.getsignal(signal.SIGTERM)
    result = run("read", "--pi", "0.50")
    assert (result.exit_code, result.stderr) == (130, "\nstopped\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_json_command_reports_an_error_as_json_too(tmp_path: Path) -> None:
    result = run("read", "--pi", "0.50", "--json", home=tmp_path)
    assert result.exit_code == 2
    assert "make demo" in result.stderr
    assert json.loads(result.stdout)["error"]["what"] == "no shop here"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--set", "epochs"), "NAME=VALUE"),
        (("train", "--set", "epochs=0"), "epochs"),
        (("train", "--set", "speed=3"), "did you mean data.seed"),
        (("train", "--preset", "tiny"), "unknown preset"),
        (("score", "--date", "yesterday"), "not a date"),
        (("score", "--date", "2026-03-02", "--until", "2026-03-01"), "before the first"),
        (("score", "--pi", "0.37"), "not a preference of this shop"),
        (("score", "--pi", "half"), "not a pi key"),
        (("front", "--model", "nobody"), "no model folder has this version"),
        (("read",), "either a preference or a channel"),
        (("rollback", "--version", "9"), "not kept"),
    ],
)
def test_json_command_refuses_wrong_arguments_with_a_hint(
    unchanged_home: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = run(*arguments, home=unchanged_home)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "hint:" in result.stderr


def test_score_releases_a_night_that_read_returns(shop: ShopInTest, tmp_path: Path) -> None:
    day = str(DAYS[0])
    scored = value("score", "--date", day, home=shop.home)
    assert scored["failed"] == {}
    assert [(row["run_date"], row["pi"]) for row in scored["released"]] == [(day, pi) for pi in GRID]
    everything = Lake(shop.lake.root).read_recommendations("0.50", day)
    assert value("read", "--pi", "0.50", "--limit", "9999", home=shop.home)[0]["item_id"] == everything["item_id"][0]
    one = value("read", "--pi", "0.50", "--key", "s003", home=shop.home)
    assert [row["rank"] for row in one] == list(range(1, K + 1))
    similar = value("read", "--pi", "0.00", "--table", "item_recommendations", "--key", "1007", home=shop.home)
    assert {row["for_item_id"] for row in similar} == {1007}
    out = tmp_path / "lists.parquet"
    assert value("read", "--pi", "0.50", "--out", str(out), home=shop.home)["rows"] == everything.height
    assert pl.read_parquet(out).equals(everything)
    assert "more rows" in run("read", "--pi", "0.50", "--limit", "3", home=shop.home).output
    assert run("read", "--pi", "0.50", "--out", "lists.xls", home=shop.home).exit_code == 2
    # Sessions prepared from other events, or with another vocabulary, are prepared again.
    made_from = load_shop(shop.home).scoring_sessions(DAYS[0]) / "made_from.json"
    description = made_from.read_text()
    for other in ({"events": "before the late ones"}, {"vocabulary_hash": "of the model before a rollback"}):
        made_from.write_text(json.dumps({**json.loads(description), **other}))
        assert value("score", "--date", day, "--pi", "0.50", home=shop.home)["failed"] == {}
        assert made_from.read_text() == description
    # The second day has lost half of its sessions: it is not released, and the command reports it.
    late = run("score", "--date", str(DAYS[1]), "--pi", "0.50", home=shop.home)
    assert late.exit_code == 1
    assert "failed: 2026-03-02 pi 0.50" in late.output
    # The state of the nights as text and as JSON; --check is for cron.
    text = run("status", home=shop.home).output
    assert f"{day}  complete" in text
    assert "like_the_night_before" in text, "why a preference is not released"
    assert f"{DAYS[1]}|0.50" in text, "the re-run command"
    nights = value("status", "--nights", "3", home=shop.home)["nights"]
    assert [night["day"] for night in nights] == [str(each) for each in reversed(DAYS)]
    assert {each["state"] for each in nights[-1]["preferences"]} == {"published"}
    assert run("status", "--check", home=shop.home).exit_code == 1
    assert "number of nights is below 1" in run("status", "--nights", "0", home=shop.home).stderr


def test_rollback_refuses_a_version_that_is_not_kept(shop: ShopInTest) -> None:
    assert "is already live" in run("deploy", home=shop.home).output
    result = run("rollback", home=shop.home)
    assert result.exit_code == 2, "there is only one version"
    assert "not kept" in result.stderr
    assert value("rollback", "--version", "1", home=shop.home)["model_version"] == "random"


@pytest.mark.slow
def test_train_front_report_and_baselines_of_one_model(tmp_path: Path) -> None:
    home = tmp_path / "shop"
    settings = demo_settings()
    last = settings.calendar.first_day + dt.timedelta(days=3)
    calendar = settings.calendar.model_copy(update={"last_day": last})
    write_shop(home, settings.model_copy(update={"calendar": calendar}))
    shop = load_shop(home)
    simulate(home / "raw", sessions=1500, items=80, days=4, first_day=calendar.first_day)
    ingest(raw_source(shop), shop.lake(), first=calendar.first_day, last=last)
    small = [f"--set={setting}" for setting in ("epochs=1", "uniform_negatives=16", "in_batch_negatives=4")]
    trained = value("train", *small, home=home)
    folder = Path(trained["folder"])
    assert models.newest(shop) == folder
    assert len(trained["epochs"]) == 1
    front = value("front", "--points", "4", home=home)
    assert front["model_version"] == trained["model_version"]
    assert [row["pi_order"] for row in front["rows"]] == sorted(row["pi_order"] for row in front["rows"])
    assert pl.read_delta(shop.lake().uri("fronts")).height == 4
    assert front["hypervolume"]["reference"]
    assert Path(front["picture"]).read_bytes().startswith(b"\x89PNG")
    again = run("train", *small, "--keep-sessions", home=home)
    assert trained["model_version"] in again.output
    written = value("report", "--out", str(tmp_path / "r.html"), "--model", str(folder), home=home)
    assert Path(written["report"]).read_text().startswith("<!doctype html>")
    assert "popularity" in [row["baseline"] for row in value("baselines", home=home)]
