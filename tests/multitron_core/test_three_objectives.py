"""Three objectives, clicks, carts and orders: from OTTO's raw lines to a front."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.events.read import read_events
from multitron_core.front.evaluation import evaluate_front, front_volume
from multitron_core.front.files import save_front
from multitron_core.front.measurement import measure_front
from multitron_core.front.monotonicity import extremes
from multitron_core.front.volume import dominated, hypervolume
from multitron_core.lake.lake import Lake
from multitron_core.model.folder import load_model
from multitron_core.preference.keys import preference, preference_key, preferences
from multitron_core.preference.objectives import labels_of
from multitron_core.preference.operating_point import choose_operating_point
from multitron_core.preference.spacing import lattice_preferences
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.prepare import PreparedSessions, format_statistics, prepare_sessions
from multitron_core.simulator.ground_truth import Habits
from multitron_core.simulator.simulation import simulate
from multitron_core.training import presets
from multitron_core.training.trainer import train

OBJECTIVES = ("click", "cart", "order")
RAW = """\
{"session":1,"events":[{"aid":1,"ts":1600000000001,"type":"clicks"},\
{"aid":2,"ts":1600000000002,"type":"clicks"},\
{"aid":1,"ts":1600000000003,"type":"carts"},\
{"aid":1,"ts":1600000000004,"type":"clicks"},\
{"aid":2,"ts":1600000000005,"type":"orders"}]}
{"session":2,"events":[{"aid":2,"ts":1600000000001,"type":"carts"},\
{"aid":2,"ts":1600000000002,"type":"clicks"},\
{"aid":1,"ts":1600000000003,"type":"clicks"},\
{"aid":9,"ts":1600000000004,"type":"carts"}]}
"""


def prepared_by_hand(tmp_path: Path, objectives: tuple[str, ...] = OBJECTIVES) -> PreparedSessions:
    for part in ("train", "test"):
        (tmp_path / f"otto-recsys-{part}.jsonl").write_text(RAW.replace('"session":', f'"session":{len(part)}'))
    return prepare_sessions(read_events(tmp_path, "otto"), "otto", objectives=objectives)


def test_prepare_sessions_labels_carts(tmp_path: Path) -> None:
    prepared = prepared_by_hand(tmp_path)
    train = prepared.train
    assert train.items.tolist() == [1, 2, 1, 2, 1]
    assert train.ordered.tolist() == [False, True, False, False, False]
    assert train.carted is not None
    assert train.carted.tolist() == [True, False, False, False, False]  # a cart before the click is none after it
    assert prepared.statistics["train"] == {"sessions": 2, "clicks": 5, "orders": 1, "carts": 2}
    counts = prepared.statistics
    dropped = sum(count for reason, count in counts["dropped"].items() if reason.startswith("carts"))
    assert counts["in"]["carts"] == 6 == counts["train"]["carts"] + counts["test"]["carts"] + dropped
    assert "carts" in format_statistics(counts)
    assert train.to_frame().columns == ["session_id", "items", "ordered"]
    train.save(tmp_path / "encoded")
    again = EncodedSessions.load(tmp_path / "encoded").select(np.array([1, 0]))
    assert again.carted is not None
    assert again.carted.tolist() == [False, False, True, False, False]


def test_prepare_sessions_of_two_objectives_reads_no_carts(tmp_path: Path) -> None:
    prepared = prepared_by_hand(tmp_path, objectives=("click", "order"))
    three = prepared_by_hand(tmp_path)
    assert prepared.train.carted is None
    assert prepared.statistics["dropped"]["carts: not used"] == 6
    assert prepared.train.to_frame().equals(three.train.to_frame())
    with pytest.raises(InputError, match="no labels of carts"):
        labels_of(OBJECTIVES, prepared.train.labels, 5)


@pytest.mark.parametrize("names", [(), ("order", "click"), ("click", "wishlist")])
def test_prepare_sessions_refuses_unknown_objectives(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="unknown objectives"):
        prepared_by_hand(tmp_path, objectives=names)


def test_preference_and_its_key() -> None:
    assert preference("0.20:0.30:0.50", 3) == (0.2, 0.3, 0.5)
    assert preference("0.25") == (0.75, 0.25)
    assert preference_key([1 / 3] * 3) == "0.34:0.33:0.33"
    assert preference_key([0.0, 0.0, 1.0]) == "0.00:0.00:1.00"
    for key in ("0.50", "0.50:0.50", "0.50:0.50:0.50", "0.5:0.2:0.3", "0.20:0.30:0.50:"):
        with pytest.raises(InputError, match="3 objectives"):
            preference(key, 3)
    with pytest.raises(InputError, match="without repeats"):
        preferences(["0.20:0.30:0.50"] * 2, 3)
    with pytest.raises(InputError, match="not a pi key"):
        preference("0.20:0.30:0.50")


@pytest.mark.parametrize("k", [3, 4])
def test_lattice_preferences_are_all_points_of_the_simplex(k: int) -> None:
    lattice = lattice_preferences(26, k)
    h = round(1 / min(weight for weights in lattice for weight in weights if weight))
    assert len(lattice) == math.comb(h + k - 1, k - 1) >= 26 > math.comb(h + k - 2, k - 1)
    expected = {weights for weights in itertools.product(range(h + 1), repeat=k) if sum(weights) == h}
    assert {tuple(round(weight * h) for weight in weights) for weights in lattice} == expected
    with pytest.raises(InputError, match="each corner"):
        lattice_preferences(k - 1, k)


@pytest.mark.slow
def test_front_between_clicks_carts_and_orders(tmp_path: Path) -> None:
    habits = Habits(order_rate=0.15, cart_rate=0.35, category_size=20)
    simulate(tmp_path / "raw", sessions=4_000, items=120, days=4, format="otto", habits=habits)
    data = prepare_sessions(read_events(tmp_path / "raw", "otto"), "otto", objectives=OBJECTIVES)
    recipe = presets.demo().with_objectives(OBJECTIVES)
    assert recipe.training.data.beta == (0.5, 0.5, 0.5)
    assert recipe.training.validation.validation_pi[-1] == "0.34:0.33:0.33"
    binary = {"order_loss": "bce", "cart_loss": "bce", "validation_share": 0.02}
    recipe = recipe.changed(
        model={"dimension": 16, "layers": 1},
        training={"epochs": 6, "uniform_negatives": 64, **binary},
    )
    folder = train(data, recipe, tmp_path / "model", progress=False)
    metrics = pl.read_parquet(folder / "metrics.parquet")
    assert {"train_cart_loss", "validation_cart_loss_0.00:1.00:0.00"} <= set(metrics.columns)

    model = load_model(folder)
    front = evaluate_front(model, data, 10, config=recipe.training)
    assert front.height == 10
    assert front.select("pi_order", "pi_cart", "pi_click").row(-1) == (1.0, 0.0, 0.0)
    ends = extremes(front)
    assert ends["objective"].to_list() == list(OBJECTIVES)
    assert (ends["loss"] <= ends["best_loss"] + 1e-12).all(), ends
    losses = front.select(f"{name}_loss" for name in OBJECTIVES).to_numpy()
    assert front["dominated"].to_list() == dominated(losses).tolist()
    assert not front.filter(pl.col("pi_click") == 0.0)["ranks_trained"].any()

    measured = measure_front(model, data, [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)], config=recipe.training)
    assert len(front_volume(measured, resamples=2).reference) == 3
    volume = front_volume(measured, reference=(8.0, 5.0, 5.0), resamples=20)
    assert volume.raw.value == pytest.approx(hypervolume(measured.losses.mean(axis=1), volume.reference), rel=1e-5)
    assert 0.0 < volume.raw.low <= volume.raw.value <= volume.raw.high

    save_front(front, volume, folder)
    kept = sorted(path.name for path in folder.glob("*") if path.suffix == ".png" or path.name.startswith("front"))
    assert kept == ["front.parquet", "front.png", "front_metrics.png", "training.png"]
    point = choose_operating_point(front, "cart_recall_20", 0.05)
    assert len(preference(point.pi_key, 3)) == 3
    with pytest.raises(InputError, match="not a pi key"):  # the tables' preference is the weight on orders
        Lake(tmp_path / "lake").read_recommendations(point.pi_key)


def test_front_ranks_are_trained_by_losses_that_rank(tmp_path: Path) -> None:
    data = prepared_by_hand(tmp_path)
    recipe = presets.demo().with_objectives(OBJECTIVES)
    recipe = recipe.changed(
        model={"dimension": 8, "layers": 1},
        training={"epochs": 1, "uniform_negatives": 4, "cart_loss": "bce", "validation_share": 0.0},
    )
    folder = train(data, recipe, tmp_path / "model", progress=False)
    front = evaluate_front(load_model(folder), data.train, 3, config=recipe.training)
    trained = dict(zip(front["pi_order"].to_list(), front["ranks_trained"].to_list(), strict=True))
    assert trained[1.0]
    assert not front.filter(pl.col("pi_cart") == 1.0)["ranks_trained"][0]
