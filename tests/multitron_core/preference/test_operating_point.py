"""Operating points on a front of five points, small enough to find the right answer by eye."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.preference.operating_point import choose_operating_point, record_operating_point

FRONT = pl.DataFrame(
    {
        "pi_order": [0.0, 0.25, 0.5, 0.964, 1.0],
        "click_loss": [2.0, 2.1, 2.5, 3.0, 4.0],
        "order_loss": [0.7, 0.5, 0.6, 0.2, 0.1],
        "click_recall_20": [0.50, 0.49, 0.485, 0.47, 0.10],
        "order_recall_20": [0.70, 0.71, 0.75, 0.74, 0.90],
        "order_density": [0.020, 0.022, 0.030, 0.025, 0.090],
        "dominated": [False, False, True, False, False],
    }
)


def test_choose_operating_point_by_default() -> None:
    point = choose_operating_point(FRONT)
    assert (point.pi_order, point.pi_key, point.value) == (0.25, "0.25", 0.022)
    assert point.click_recall_loss == pytest.approx(0.01)


def test_choose_operating_point_with_a_loose_constraint() -> None:
    point = choose_operating_point(FRONT, objective="order_recall_20", max_click_recall_loss=1.0)
    assert (point.pi_order, point.pi_key) == (0.964, "0.96")


def test_choose_operating_point_includes_on_request() -> None:
    assert choose_operating_point(FRONT, include_dominated=True).pi_order == 0.5
    assert choose_operating_point(FRONT, max_click_recall_loss=0.5, include_order_only=True).pi_order == 1.0


def test_choose_operating_point_minimises_losses() -> None:
    assert choose_operating_point(FRONT, "order_loss", 0.01).pi_order == 0.25
    assert choose_operating_point(FRONT, "order_loss", 0.03).pi_order == 0.964
    assert choose_operating_point(FRONT, "click_loss", 0.03).pi_order == 0.0


def test_choose_operating_point_never_rounds_its_key_to_one() -> None:
    front = FRONT.with_columns(pl.Series("pi_order", [0.0, 0.25, 0.5, 0.9961, 1.0]))
    assert choose_operating_point(front, "order_loss", 0.5).pi_key == "0.99"


def test_choose_operating_point_prefers_clicks_if_equal() -> None:
    front = FRONT.with_columns(pl.lit(0.02).alias("order_density"))
    assert choose_operating_point(front).pi_order == 0.0


@pytest.mark.parametrize(
    ("front", "max_click_recall_loss"),
    [
        (FRONT.drop("order_density"), 0.02),
        (FRONT.drop("dominated"), 0.02),
        (FRONT.filter(pl.col("pi_order") == 1.0), 0.02),
        (FRONT.with_columns(pl.lit(None, pl.Float64).alias("order_density")), 0.02),
        (FRONT.clear(), 0.02),
        (FRONT, -0.1),
        (FRONT, float("nan")),
    ],
)
def test_choose_operating_point_refuses(front: pl.DataFrame, max_click_recall_loss: float) -> None:
    with pytest.raises(InputError):
        choose_operating_point(front, max_click_recall_loss=max_click_recall_loss)


def test_record_operating_point_adds_the_model_version(tmp_path: Path) -> None:
    point = choose_operating_point(FRONT)
    record_operating_point(point, tmp_path, name="newsletter", model_version="abc")
    path = record_operating_point(point, tmp_path, name="home page", model_version="abc")
    recorded = json.loads(path.read_text())
    assert sorted(recorded) == ["home page", "newsletter"]
    assert recorded["newsletter"]["model_version"] == "abc"
    assert recorded["newsletter"]["pi_key"] == "0.25"
    old = choose_operating_point(FRONT, model_version="old")
    with pytest.raises(InputError, match="another model"):
        record_operating_point(old, tmp_path, name="newsletter", model_version="abc")
    with pytest.raises(InputError, match="not a model folder"):
        record_operating_point(point, tmp_path / "nowhere", name="newsletter", model_version="abc")
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        record_operating_point(point, tmp_path, name="newsletter", model_version="abc")
