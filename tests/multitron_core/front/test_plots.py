"""Plots: size of the PNG, and labels, lines and markers of the figure that is drawn."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from multitron_core.errors import InputError
from multitron_core.front import plots

FRONT = pl.DataFrame(
    {
        "pi_order": [0.0, 0.5, 0.75, 1.0],
        "click_loss": [2.0, 2.5, 2.6, 4.0],
        "order_loss": [0.7, 0.5, 0.6, 0.1],
        "click_recall_20": [0.50, 0.49, 0.45, 0.10],
        "order_recall_20": [0.70, 0.71, 0.75, 0.90],
        "order_density": [0.020, 0.022, 0.030, 0.090],
        "recall_x_density": [0.01, 0.011, 0.0135, 0.009],
        "dominated": [False, False, True, False],
    }
)
BASELINES = pl.DataFrame(
    {"baseline": ["popularity", "co-visitation"], "click_recall_20": [0.01, 0.47], "order_recall_20": [0.01, None]}
)
METRICS = pl.DataFrame(
    {
        "epoch": [1, 2],
        "train_loss": [3.0, 2.0],
        "train_click_loss": [4.0, 3.0],
        "train_order_loss": [0.7, 0.6],
        "validation_click_loss_0.00": [3.9, 2.9],
        "validation_order_loss_0.00": [0.7, 0.8],
        "validation_click_recall_20_0.00": [0.2, 0.3],
    }
)


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn during a test. Plots are returned as PNG, so matplotlib's writer is observed."""
    drawn: list[Figure] = []
    print_png = FigureCanvasAgg.print_png

    def observed(canvas: FigureCanvasAgg, *args: Any, **options: Any) -> None:
        drawn.append(canvas.figure)
        print_png(canvas, *args, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", observed)
    return drawn


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, in pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_front_picture_marks_dominated_points_and_units(figure: list[Figure]) -> None:
    assert size(plots.front_picture(FRONT)) == (700, 500)
    axes = figure[0].axes[0]
    assert axes.get_xlabel() == "click loss $L_c$ (nats per step)"
    points = [line for line in axes.lines if line.get_marker() == "o"]
    hollow = [np.asarray(line.get_xdata())[0] for line in points if isinstance(line.get_markerfacecolor(), str)]
    assert len(points) == 4
    assert hollow == [2.6]
    assert "weight on orders" in figure[0].axes[1].get_ylabel()


def test_compare_fronts_scales_losses_to_0_and_1(figure: list[Figure]) -> None:
    flat = FRONT.with_columns(pl.lit(1.0).alias("order_loss"))
    assert size(plots.compare_fronts({"a": FRONT, "flat": flat}))[0] > 700
    for axes, name in zip(figure[0].axes, ("a", "flat"), strict=False):
        assert axes.get_title().startswith(name)
        values = np.concatenate([np.asarray(line.get_xydata()).ravel() for line in axes.lines])
        assert values.min() >= 0.0
        assert values.max() <= 1.0
    with pytest.raises(InputError):
        plots.compare_fronts({})


def test_metrics_picture_shows_the_best_baseline(figure: list[Figure]) -> None:
    size(plots.metrics_picture(FRONT, baselines=BASELINES))
    axes = figure[0].axes[0]
    assert axes.get_title(loc="right") == "dashed: co-visitation"
    assert [np.asarray(line.get_ydata())[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.47]
    labels = [axes.get_ylabel() for axes in figure[0].axes]
    assert labels[:2] == ["click recall@20", "order recall@20"]


def test_metrics_picture_without_values_has_an_empty_panel(figure: list[Figure]) -> None:
    size(plots.metrics_picture(FRONT.with_columns(pl.lit(None, pl.Float64).alias("order_recall_20"))))
    assert all(not np.size(line.get_xdata()) for line in figure[0].axes[1].lines)


def test_training_curves_have_one_line_per_preference(figure: list[Figure]) -> None:
    size(plots.training_curves(METRICS))
    assert [len(axes.lines) for axes in figure[0].axes] == [2, 2, 1]
    size(plots.training_curves(METRICS.select("epoch", "train_click_loss", "train_order_loss").head(1)))
    assert [len(axes.lines) for axes in figure[1].axes] == [1, 1]


@pytest.mark.parametrize("draw", [plots.front_picture, plots.metrics_picture, plots.training_curves])
def test_plots_refuse_tables_without_columns_or_rows(draw: Callable[[pl.DataFrame], bytes]) -> None:
    with pytest.raises(InputError):
        draw(FRONT.select("pi_order"))
    with pytest.raises(InputError):
        draw((METRICS if draw is plots.training_curves else FRONT).clear())
