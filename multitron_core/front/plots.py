"""Plots of fronts, metrics and training curves, as PNG bytes.

The colours are viridis and the palette of Okabe and Ito ("Color Universal Design", 2008), which colour-blind readers
can distinguish. Every colour distinction is repeated by a marker or a line style.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from multitron_core.errors import InputError
from multitron_core.front.columns import list_length, objective_names
from multitron_core.front.volume import dominated, normalised_hypervolume

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WEIGHT = Normalize(0.0, 1.0)
_GREY = "#767676"


def front_picture(front: pl.DataFrame, *, title: str = "Pareto front of the losses") -> bytes:
    """Plot order loss against click loss, coloured by the weight on orders, as in the paper's Figure 1.

    Args:
        front: Table as `evaluate_front` returns it: `pi_order`, `click_loss`, `order_loss`.
        title: Title of the plot.

    Returns:
        PNG image.
    """
    _check_columns(front, "pi_order", "click_loss", "order_loss")
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.subplots()
    _draw_front(axes, front.sort("pi_order"))
    axes.set(title=title, xlabel="click loss $L_c$ (nats per step)", ylabel="order loss $L_o$ (nats per step)")
    _add_legend(figure, [axes])
    return _png(figure)


def pairs_picture(front: pl.DataFrame) -> bytes:
    """Plot a front of three or more objectives: one panel per pair of losses, coloured by the weight on the second.

    Args:
        front: Table as `evaluate_front` returns it: `pi_...`, `..._loss`, `dominated` (in all losses together).

    Returns:
        PNG image.
    """
    names = objective_names(front)
    _check_columns(front, "dominated", *(f"{name}_loss" for name in names))
    pairs = list(itertools.combinations(names, 2))
    figure = Figure(figsize=(0.6 + 4.4 * len(pairs), 4.4), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        colours = ScalarMappable(_WEIGHT, "viridis").to_rgba(front[f"pi_{y}"].to_numpy())
        for point, colour in zip(front.iter_rows(named=True), colours, strict=True):
            face = "white" if point["dominated"] else colour
            axes.plot(point[f"{x}_loss"], point[f"{y}_loss"], "o", markersize=7, color=colour, markerfacecolor=face)
        axes.set(xlabel=f"{x} loss (nats per step)", ylabel=f"{y} loss (nats per step)")
        axes.grid(alpha=0.3)
        bar = figure.colorbar(ScalarMappable(_WEIGHT, "viridis"), ax=axes, location="top")
        bar.set_label(f"weight on {y}s")
    figure.suptitle("Pareto front of the losses")
    marks = [_mark(_GREY, _GREY, "non-dominated"), _mark(_GREY, "white", "dominated in all losses")]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False)
    return _png(figure)


def simplex_picture(front: pl.DataFrame) -> bytes:
    """Plot the recalls of a front of three objectives over the triangle of preferences, one panel per objective.

    Args:
        front: Table as `evaluate_front` returns it.

    Returns:
        PNG image.

    Raises:
        InputError: The front does not have three objectives.
    """
    names = objective_names(front)
    if len(names) != 3:
        raise InputError("the plot needs three objectives", where="simplex_picture", found=names)
    corners = np.array([[0.0, 0.0], [0.5, math.sqrt(0.75)], [1.0, 0.0]])
    x, y = (front.select(f"pi_{name}" for name in names).to_numpy() @ corners).T
    recalls = [next(column for column in front.columns if column.startswith(f"{name}_recall_")) for name in names]
    figure = Figure(figsize=(13.0, 4.4), layout="constrained")
    for axes, name, column in zip(figure.subplots(1, 3), names, recalls, strict=True):
        points = axes.scatter(x, y, c=front[column].to_numpy(), s=170, cmap="viridis", edgecolors=_GREY)
        figure.colorbar(points, ax=axes, location="bottom", shrink=0.8, ticks=MaxNLocator(4)).set_label(
            column.replace("_recall_", " recall@")
        )
        for corner, place, label in zip(corners, ((0, -0.12), (0, 0.08), (0, -0.12)), names, strict=True):
            axes.text(*(corner + place), f"all weight on {label}s", ha="center", va="center", fontsize=9)
        axes.text(0.5, 1.12, f"Recall of {name}s by preference", ha="center", va="center", fontsize=12)
        axes.set(xlim=(-0.25, 1.25), ylim=(-0.2, 1.18), aspect="equal")
        axes.set_axis_off()
    return _png(figure)


def compare_fronts(fronts: Mapping[str, pl.DataFrame]) -> bytes:
    """Plot several fronts side by side, each loss scaled to [0, 1] from the smallest to the largest of its front.

    Absolute losses depend on data and negatives. Shapes are comparable; the titles give their normalised hypervolumes.

    Args:
        fronts: Fronts by name, with the columns of `front_picture`.

    Returns:
        PNG image.
    """
    if not fronts:
        raise InputError("there is no front to plot", where="compare_fronts", hint="pass at least one front")
    figure = Figure(figsize=(1.0 + 4.2 * len(fronts), 4.6), layout="constrained")
    all_axes = figure.subplots(1, len(fronts), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, front) in zip(all_axes, fronts.items(), strict=True):
        _check_columns(front, "pi_order", "click_loss", "order_loss")
        scaled = front.sort("pi_order").with_columns(
            ((pl.col(loss) - pl.col(loss).min()) / (pl.col(loss).max() - pl.col(loss).min())).fill_nan(0.0)
            for loss in ("click_loss", "order_loss")
        )
        _draw_front(axes, scaled)
        volume = normalised_hypervolume(front.select("click_loss", "order_loss").to_numpy())
        axes.set_title(f"{name}\nnormalised hypervolume {volume:.3f}")
        axes.set_xlabel("click loss (0 best, 1 worst)")
    all_axes[0].set_ylabel("order loss (0 best, 1 worst)")
    _add_legend(figure, list(all_axes))
    return _png(figure)


def metrics_picture(front: pl.DataFrame, *, baselines: pl.DataFrame | None = None) -> bytes:
    """Plot the ranking metrics against the weight on orders, one panel per metric.

    Args:
        front: Table as `evaluate_front` returns it.
        baselines: Table as `evaluate_baselines` returns it; a dashed line marks the best baseline of each metric.

    Returns:
        PNG image.
    """
    panels = _panels(front)
    figure = Figure(figsize=(9.0, 6.6), layout="constrained")
    front = front.sort("pi_order")
    for axes, (column, label) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        measured = front.drop_nulls(column)
        axes.plot(measured["pi_order"], measured[column], color=COLOURS[0], linewidth=1.2)
        for is_dominated, face in ((False, COLOURS[0]), (True, "white")):
            part = measured.filter(pl.col("dominated") == is_dominated)
            axes.plot(part["pi_order"], part[column], "o", markersize=5, color=COLOURS[0], markerfacecolor=face)
        if baselines is not None and column in baselines.columns and baselines[column].count():
            best = baselines.sort(column, descending=True, nulls_last=True).row(0, named=True)
            axes.axhline(best[column], color=COLOURS[1], linestyle="--", linewidth=1.2)
            axes.set_title(f"dashed: {best['baseline']}", fontsize=9, color=COLOURS[1], loc="right")
        axes.set_ylabel(label)
        axes.margins(y=0.15)
        axes.grid(alpha=0.3)
    for axes in figure.axes[2:]:
        axes.set_xlabel(r"weight on orders $\pi_o$")
    figure.suptitle("Exact metrics by preference")
    marks = [_mark(COLOURS[0], COLOURS[0], "non-dominated"), _mark(COLOURS[0], "white", "dominated in the losses")]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False)
    return _png(figure)


def _panels(front: pl.DataFrame) -> list[tuple[str, str]]:
    """Column and label of each panel."""
    k = list_length(front)
    panels = [
        (f"click_recall_{k}", f"click recall@{k}"),
        (f"order_recall_{k}", f"order recall@{k}"),
        ("order_density", "order density (share of hits)"),
        ("recall_x_density", "click recall × order density"),
    ]
    _check_columns(front, "pi_order", "dominated", *(column for column, _ in panels))
    return panels


def training_curves(metrics: pl.DataFrame) -> bytes:
    """Plot losses and validation recall by epoch.

    Args:
        metrics: `metrics.parquet` of a model folder: `epoch`, `train_..._loss`, `validation_..._{pi}`.

    Returns:
        PNG image.
    """
    _check_columns(metrics, "epoch", "train_click_loss")
    trained = [re.fullmatch(r"train_(\w+_loss)", name) for name in metrics.columns]
    losses = [found.group(1) for found in trained if found]
    recalls = [name for name in metrics.columns if name.startswith("validation_click_recall")]
    groups = [(f"{name.replace('_', ' ')} (nats per step)", _curves(metrics, name)) for name in losses]
    if recalls:
        k = recalls[0].removeprefix("validation_click_recall_").split("_")[0]
        groups.append((f"click recall@{k}, held-out sessions", _curves(metrics, f"click_recall_{k}")))
    figure = Figure(figsize=(1.0 + 4.2 * len(groups), 4.4), layout="constrained")
    handles: dict[str, Line2D] = {}
    for axes, (label, curves) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        for name, column, style in curves:
            line = axes.plot(metrics["epoch"], metrics[column], markersize=4, linewidth=1.4, label=name, **style)[0]
            handles.setdefault(name, line)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.suptitle("Training")
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=len(handles), frameon=False)
    return _png(figure)


def _curves(metrics: pl.DataFrame, quantity: str) -> list[tuple[str, str, dict[str, str]]]:
    """Name, column and line style of each curve of a quantity."""
    curves = []
    if f"train_{quantity}" in metrics.columns:
        style = {"color": COLOURS[-1], "linestyle": LINES[3], "marker": "x"}
        curves.append((r"training, sampled $\pi$", f"train_{quantity}", style))
    columns = [name for name in metrics.columns if name.startswith(f"validation_{quantity}_")]
    for i, column in enumerate(columns):
        pi = column.removeprefix(f"validation_{quantity}_")
        style = {"color": COLOURS[i % 6], "linestyle": LINES[i % 3], "marker": MARKERS[i % len(MARKERS)]}
        curves.append((rf"validation, $\pi_o$ = {pi}", column, style))
    return curves


def _draw_front(axes: Axes, front: pl.DataFrame) -> None:
    """Draw the points in the order of the rows; dominated points are hollow."""
    is_dominated = dominated(front.select("click_loss", "order_loss").to_numpy())
    axes.plot(front["click_loss"], front["order_loss"], color=_GREY, linewidth=0.8, zorder=1)
    colours = ScalarMappable(_WEIGHT, "viridis").to_rgba(front["pi_order"].to_numpy())
    for point, colour, hollow in zip(front.iter_rows(named=True), colours, is_dominated, strict=True):
        axes.plot(
            point["click_loss"],
            point["order_loss"],
            "o",
            markersize=7,
            color=colour,
            markerfacecolor="white" if hollow else colour,
            zorder=2,
        )
    axes.grid(alpha=0.3)


def _add_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    bar = figure.colorbar(ScalarMappable(_WEIGHT, "viridis"), ax=axes, location="right")
    bar.set_label(r"weight on orders $\pi_o$")
    marks = [_mark(_GREY, _GREY, "non-dominated"), _mark(_GREY, "white", "dominated")]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False)


def _mark(colour: str, face: str, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=colour, markerfacecolor=face, label=label)


def _check_columns(frame: pl.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError("the table lacks columns of the plot", found=missing, hint=f"its columns are {frame.columns}")
    if frame.is_empty():
        raise InputError("the table of the plot has no rows", hint="measure at least one point")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # no global pyplot state: safe in threads
    return buffer.getvalue()
