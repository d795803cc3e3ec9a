"""Training in one process and in two that torchrun starts: real runs of Dagster and of gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from multitron_core.errors import InputError, UnavailableError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import presets
from orchestration.lifecycle.torchrun import train_in_processes
from orchestration.shop import models
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings
from orchestration.shop.toml import write_shop
from tests.orchestration.conftest import ITEMS, SETTINGS, ShopInTest

TRAINING = {"epochs": 2, "batch_sessions": 16, "uniform_negatives": 32, "in_batch_negatives": 2}


def prepared_sessions(sessions: int = 120) -> PreparedSessions:
    """Sessions that click consecutive items of a ring of forty."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 7, sessions)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    start = np.repeat(rng.integers(0, ITEMS, sessions), lengths)
    step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    items = ((start + step) % ITEMS + 1).astype(np.int32)
    vocabulary = Vocabulary(pl.Series(range(1000, 1000 + ITEMS), dtype=pl.Int64))
    ids = pl.Series([f"s{number}" for number in range(sessions)])
    data = EncodedSessions(ids, offsets, items, rng.random(len(items)) < 0.2, vocabulary.hash)
    return PreparedSessions(data, data.select(np.arange(20)), vocabulary, {})


def trained(shop: ShopInTest, processes: int, *assets: str) -> tuple[Path, list[dict[str, Any]], dict[str, bool]]:
    """Run a training: its model folder, the observed metadata of each epoch, and which checks passed."""
    section = {"preset": "demo", "device": "cpu", "processes": processes, "training": TRAINING}
    shop.change(model={**section, "gate_baseline": "co-visitation"})
    done = shop.run("training", asset_selection=[dg.AssetKey(name) for name in assets])
    assert done.success, [event.message for event in done.all_events if event.is_failure]
    events = [event for event in done.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    observed = [dict(event.event_specific_data.asset_observation.metadata) for event in events]
    checks = {check.check_name: check.passed for check in done.get_asset_check_evaluations()}
    of_front = {"beats_baseline", "follows_preference", "scored_ranks_trained"}
    assert set(checks) == (of_front if "front" in assets else set())
    return models.newest(load_shop(shop.home)), observed, checks


@pytest.mark.slow
def test_train_in_processes_trains_the_asset_model(tmp_path: Path) -> None:
    write_shop(tmp_path, Settings.model_validate(SETTINGS))
    prepared_sessions().save(load_shop(tmp_path).training_sessions)
    with dg.DagsterInstance.ephemeral() as instance:
        shop = ShopInTest(tmp_path, instance)
        one, epochs, passed = trained(shop, 1, "model", "front")
        assert passed["scored_ranks_trained"], "the order loss of the preset ranks"
        weights, metrics = load_file(one / "weights.safetensors"), pl.read_parquet(one / "metrics.parquet")
        assert [row["epoch"].value for row in epochs] == [1, 2]
        assert epochs[1]["train_click_loss"].value == pytest.approx(metrics["train_click_loss"][1])
        assert "data:image/png;base64," in epochs[1]["curves"].value

        shutil.rmtree(one)  # else the same training would return this folder
        two, epochs, passed = trained(shop, 2, "model", "front")
    assert two == one
    assert passed["scored_ranks_trained"]
    front, losses = pl.read_parquet(two / "front.parquet"), ["click_loss", "order_loss"]
    assert front.height == 26
    assert np.isfinite(front.select(losses).to_numpy()).all()
    volume = json.loads((two / "hypervolume.json").read_text())
    assert 0.0 < volume["normalised"]["value"] <= 1.0
    assert [row["epoch"].value for row in epochs] == [1, 2]
    again = pl.read_parquet(two / "metrics.parquet")
    # Dropout differs between the two; the tests of training compare them at dropout 0.
    assert again["train_loss"].to_list() == pytest.approx(metrics["train_loss"].to_list(), rel=0.3)
    for name, tensor in load_file(two / "weights.safetensors").items():
        assert torch.isfinite(tensor).all()
        assert tensor.shape == weights[name].shape


@pytest.mark.slow
def test_train_in_processes_raises_what_training_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prepared sessions cannot be read"):
        train_in_processes(tmp_path, presets.demo(), tmp_path / "model", processes=2, device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_train_in_processes_resumes_after_a_killed_process(tmp_path: Path) -> None:
    prepared_sessions().save(tmp_path / "prepared")
    config = presets.named("demo", training={**TRAINING, "epochs": 3})
    epochs: list[int] = []

    def kill_one(row: dict[str, float]) -> None:
        epochs.append(int(row["epoch"]))
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_text()
            except OSError:
                continue  # the process has ended
            if str(tmp_path) in command and "torch.distributed.run" not in command:
                os.kill(int(process.name), signal.SIGKILL)
                return

    def train(on_epoch: Callable[[dict[str, float]], None]) -> None:
        prepared, folder = tmp_path / "prepared", tmp_path / "model"
        train_in_processes(prepared, config, folder, processes=2, device="cpu", on_epoch=on_epoch)

    with pytest.raises(UnavailableError, match=r"a training process was killed.*lower batch_sessions"):
        train(kill_one)
    assert not (tmp_path / "model").exists()
    train(lambda row: epochs.append(int(row["epoch"])))
    assert epochs[0] == 1
    assert epochs[-3:] == [1, 2, 3]
    assert len(epochs) > 3
