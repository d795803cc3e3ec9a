"""Files that version 0.1 wrote are read as version 0.1 read them; see tests/fixtures/version_0_1/README.md."""

from __future__ import annotations

import json
import shutil
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from multitron_core.errors import InputError
from multitron_core.events.ingestion import read_event_log
from multitron_core.lake.lake import Lake
from multitron_core.model.folder import load_model
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.training import presets
from multitron_core.training.config import TrainingConfig, training_config
from multitron_core.training.presets import Preset
from multitron_core.training.trainer import train
from orchestration.lifecycle.model import preset_of
from orchestration.shop.home import load_shop

FILES = Path(__file__).parent / "fixtures" / "version_0_1"
LISTS = pl.read_parquet(FILES / "expected_lists.parquet")
TRAININGS = ("two", "three")

MODEL = {"dimension": 8, "layers": 1, "max_length": 12, "dropout": 0.1, "own_clicks": "added"}
TRAINING = {
    "epochs": 3,
    "batch_sessions": 16,
    "uniform_negatives": 32,
    "in_batch_negatives": 4,
    "kept_negatives": 20,
    "validation_share": 0.1,
    "keep": "best",
    "checkpoint_steps": 2,
    "threads": 1,
    "warmup_steps": 2,
}


def recipe(name: str) -> Preset:
    """The preset and settings that trained the model `name`."""
    if name == "two":
        return presets.named("diginetica").changed(model=MODEL, training=TRAINING)
    three = presets.named("demo").with_objectives(["click", "cart", "order"])
    return three.changed(model=MODEL, training={**TRAINING, "optimiser": "lazy_adam"})


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """The settings of a training by their flat names, with the types of JSON."""
    return dict(json.loads(json.dumps(config.flat())))


def on_the_same_machine() -> bool:
    """Whether this machine has the torch and the CPU that trained the models, so that results are equal bit by bit."""
    made_on = json.loads((FILES / "machine.json").read_text())
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(": ")[1].strip() for line in lines if line.startswith("model name")), None)
    here = {"torch": torch.__version__, "cpu": cpu, "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    return here == made_on


@pytest.mark.parametrize("name", TRAININGS)
def test_load_model_scores_as_version_0_1(name: str) -> None:
    model = load_model(FILES / name)
    rows = pl.read_parquet(FILES / "scores.parquet").filter(model=name)
    assert rows.height == 8
    for row in rows.iter_rows(named=True):
        items = torch.tensor(row["items"])
        with torch.no_grad():
            states = model(items[None], torch.tensor([len(items)]), torch.tensor(row["pi"]))
            scores = model.scores(states)[0, -1]
        torch.testing.assert_close(scores, torch.tensor(row["scores"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_config_reads_a_version_0_1_folder(name: str) -> None:
    written = json.loads((FILES / name / "config.json").read_text())["training"]
    found = settings_of(training_config(FILES / name))
    assert written
    assert written.items() <= found.items()
    assert found == settings_of(recipe(name).training)


@pytest.mark.parametrize("name", TRAININGS)
def test_train_resumes_a_version_0_1_checkpoint(name: str, tmp_path: Path) -> None:
    shutil.copy(FILES / f"{name}.checkpoint", tmp_path)
    folder = train(
        PreparedSessions.load(FILES / "sessions"), recipe(name), tmp_path / name, device="cpu", progress=False
    )
    # The first epoch's seconds are those of the interrupted run: it was resumed and not trained again.
    before, after = (pl.read_parquet(where / "metrics.parquet") for where in (FILES / name, folder))
    assert after.columns == before.columns
    assert after["seconds"][0] == before["seconds"][0]
    expected, found = (load_file(where / "weights.safetensors") for where in (FILES / name, folder))
    rtol, atol = (0.0, 0.0) if on_the_same_machine() else (1e-3, 1e-4)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    times = pl.exclude("seconds", "sessions_per_second")
    if on_the_same_machine():
        assert after.select(times).equals(before.select(times))


@pytest.mark.parametrize("name", TRAININGS)
def test_train_returns_a_finished_version_0_1_folder(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FILES / name, tmp_path / name)
    data = PreparedSessions.load(FILES / "sessions")
    train(data, recipe(name), folder, device="cpu", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "weights.safetensors").read_bytes() == (FILES / name / "weights.safetensors").read_bytes()
    with pytest.raises(InputError, match="other settings or other data"):
        train(data, recipe(name).changed(training={"seed": 2}), folder, device="cpu", progress=False)


def test_load_shop_reads_every_version_0_1_setting() -> None:
    settings = load_shop(FILES).settings
    written = tomllib.loads((FILES / "shop.toml").read_text())
    training = written["model"].pop("training")
    read = settings.model_dump()
    for section, values in written.items():
        found = {name: read[section][name] for name in values}
        assert json.dumps(found, default=str) == json.dumps(values, default=str), section
    assert training.items() <= settings_of(preset_of(settings).training).items()
    newsletter, product_page = settings.declared_channels
    assert (newsletter.pi, newsletter.k, newsletter.exclude_items) == ("0.50", 8, (4711, 815))
    assert (product_page.objective, product_page.max_click_recall_loss) == ("order_density", 0.05)


@pytest.mark.parametrize(
    ("read", "options"),
    [
        ("newest", {"pi": "0.25"}),
        ("rewritten", {"pi": "0.75"}),
        ("unpublished", {"pi": "0.75", "unpublished": True}),
        ("night_before", {"pi": "0.25", "run_date": "2026-01-03", "session_ids": ["s3", "s7"]}),
        ("items", {"pi": "0.75", "table": "item_recommendations"}),
        ("fallback", {"pi": "0.25", "table": "fallback_recommendations"}),
        ("newsletter", {"channel": "newsletter"}),
        ("product_page", {"channel": "product_page"}),
    ],
)
def test_read_recommendations_of_a_version_0_1_lake(read: str, options: dict[str, Any]) -> None:
    expected = LISTS.filter(read=read).drop("read")
    expected = expected.select(column for column in expected if column.null_count() < len(expected))
    found = Lake(FILES / "lake").read_recommendations(**options)
    assert len(expected) > 0
    assert found.select(expected.columns).equals(expected)
    assert set(found.columns) == set(expected.columns)


def test_read_event_log_of_a_version_0_1_lake() -> None:
    expected = pl.read_parquet(FILES / "expected_events.parquet")
    assert read_event_log(Lake(FILES / "lake")).collect().sort(pl.all()).equals(expected)


def test_replace_partition_in_a_version_0_1_lake(tmp_path: Path) -> None:
    shutil.copytree(FILES / "lake", tmp_path / "lake")
    lake, night = Lake(tmp_path / "lake"), date(2026, 1, 5)
    lake.create(pl.Int64)
    lists = pl.DataFrame({"session_id": ["s1"] * 3, "rank": [1, 2, 3], "item_id": [5, 3, 9], "score": [0.9, 0.5, 0.1]})
    lake.replace_partition(night, "0.25", [lists], model_version="d97aec", k=3)
    lake.publish(night, "0.25")
    assert lake.read_recommendations("0.25")["item_id"].to_list() == [5, 3, 9]
    before = lake.read_recommendations("0.25", "2026-01-04")
    assert before["item_id"].equals(LISTS.filter(read="newest")["item_id"])
