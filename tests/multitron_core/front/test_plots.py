"""Pictures are PNGs of what they are given; labels, levels and marks are read from the figure before it is drawn."""

from __future__ import annotations

import struct

import polars as pl
import pytest
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
    """The figures that are drawn during a test."""
    drawn: list[Figure] = []
    to_png = plots._png
    monkeypatch.setattr(plots, "_png", lambda figure: (drawn.append(figure), to_png(figure))[1])
    return drawn


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_the_front_marks_dominated_points_and_names_units(figure: list[Figure]) -> None:
    assert size(plots.front_picture(FRONT)) == (700, 500)
    axes = figure[0].axes[0]
    assert axes.get_xlabel() == "click loss $L_c$ (nats a step)"
    points = [line for line in axes.lines if line.get_marker() == "o"]
    hollow = [line.get_xdata()[0] for line in points if isinstance(line.get_markerfacecolor(), str)]
    assert len(points) == 4
    assert hollow == [2.6]
    assert "weight on orders" in figure[0].axes[1].get_ylabel()


def test_fronts_side_by_side_are_normalised(figure: list[Figure]) -> None:
    flat = FRONT.with_columns(pl.lit(1.0).alias("order_loss"))
    assert size(plots.compare_fronts({"a": FRONT, "flat": flat}))[0] > 700
    for axes, name in zip(figure[0].axes, ("a", "flat"), strict=False):
        assert axes.get_title().startswith(name)
        values = [value for line in axes.lines for value in (*line.get_xdata(), *line.get_ydata())]
        assert min(values) >= 0.0
        assert max(values) <= 1.0
    with pytest.raises(InputError):
        plots.compare_fronts({})


def test_metrics_show_the_best_baseline(figure: list[Figure]) -> None:
    size(plots.metrics_picture(FRONT, baselines=BASELINES))
    axes = figure[0].axes[0]
    assert axes.get_title(loc="right") == "dashed: co-visitation"
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.47]
    labels = [axes.get_ylabel() for axes in figure[0].axes]
    assert labels[:2] == ["click recall@20", "order recall@20"]


def test_a_metric_without_values_leaves_its_panel_empty(figure: list[Figure]) -> None:
    size(plots.metrics_picture(FRONT.with_columns(pl.lit(None, pl.Float64).alias("order_recall_20"))))
    assert all(not len(line.get_xdata()) for line in figure[0].axes[1].lines)


def test_training_curves_have_a_line_a_preference(figure: list[Figure]) -> None:
    size(plots.training_curves(METRICS))
    assert [len(axes.lines) for axes in figure[0].axes] == [2, 2, 1]
    size(plots.training_curves(METRICS.select("epoch", "train_click_loss", "train_order_loss").head(1)))
    assert [len(axes.lines) for axes in figure[1].axes] == [1, 1]


@pytest.mark.parametrize("draw", [plots.front_picture, plots.metrics_picture, plots.training_curves])
def test_tables_that_cannot_be_drawn(draw: object) -> None:
    with pytest.raises(InputError):
        draw(FRONT.select("pi_order"))  # type: ignore[operator]
    with pytest.raises(InputError):
        draw((METRICS if draw is plots.training_curves else FRONT).clear())  # type: ignore[operator]
