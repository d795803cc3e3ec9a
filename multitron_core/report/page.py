"""Render a report's contents as one HTML page. The markup is in `templates/`; this module prepares its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from multitron_core.front.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.front.volume import dominated, normalised_hypervolume
from multitron_core.report.charts import COLOURS, DASHES, LARGE, MARKERS, Series, bars, chart, viridis
from multitron_core.report.contents import Contents
from multitron_core.report.html import METRIC_LABELS, format_cell, metric_label, render
from multitron_core.report.measurements import ABLATION_SESSIONS

STYLE = Path(__file__).with_name("style.css")
_LABELLED_PI = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Weights on orders; the nearest point to each is labelled."""
_LENGTH_BINS = {
    "2": (2, 2),
    "3": (3, 3),
    "4": (4, 4),
    "5": (5, 5),
    "6–8": (6, 8),
    "9–15": (9, 15),
    "16–50": (16, 50),
    "> 50": (51, 10**9),
}
"""Bins of clicks per session: smallest and largest count, both inclusive."""


def page(contents: Contents) -> str:
    """Render the whole document. It refers to no external resource and contains no script."""
    sections = {
        "front": _front(contents),
        "metrics": _metrics(contents),
        "point": _point(contents),
        "baselines": _baselines(contents),
        "examples": {"examples": contents.examples},
        "training": _training(contents),
        "data": _data(contents),
        "settings": _settings(contents),
    }
    return render(
        "report.html",
        style=Markup(STYLE.read_text()),
        version=contents.config["version"],
        preset=contents.config.get("preset", "unknown"),
        tiles=_tiles(contents),
        sections={name: render(f"{name}.html", **values) for name, values in sections.items()},
    )


def _tiles(contents: Contents) -> list[tuple[str, str, str]]:
    """Key figures at the top of the page, as (name, value, note)."""
    front, point, volume = contents.front, contents.point, contents.volume
    clicks = front.sort("pi_order").row(0, named=True)
    best = {row["metric"]: row for row in contents.against_baselines.iter_rows(named=True)}

    def best_baseline(metric: str) -> str:
        row = best.get(metric)
        return f"best baseline {row['baseline']:.3f} ({row['best_baseline']})" if row else "no baseline value"

    trained = front.filter(pl.col("ranks_trained"))
    order_recalls = trained["order_recall_20"].drop_nulls().to_list()
    return [
        ("click recall@20 at pi 0.00", f"{clicks['click_recall_20']:.3f}", best_baseline("click_recall_20")),
        (
            "best order recall@20",
            f"{max(order_recalls):.3f}" if order_recalls else "none",
            best_baseline("order_recall_20"),
        ),
        (
            "normalised hypervolume",
            f"{volume.normalised.value:.3f}",
            f"{volume.normalised.level:.0%} interval {volume.normalised.low:.3f} to {volume.normalised.high:.3f}",
        ),
        (
            "chosen pi",
            point.pi_key,
            f"{metric_label(point.objective)} {point.value:.4f}, click recall loss {point.click_recall_loss:.4f}",
        ),
    ]


def _front(contents: Contents) -> dict[str, Any]:
    front, point = contents.front.sort("pi_order"), contents.point
    losses = front.select("click_loss", "order_loss").to_numpy()
    chosen = int(np.abs(front["pi_order"].to_numpy() - point.pi_order).argmin())
    star = Series(
        f"operating point, pi {point.pi_key}",
        [losses[chosen, 0]],
        [losses[chosen, 1]],
        marker="star",
        line=False,
        colour="#000",
        tooltips=[f"operating point, pi {point.pi_key}"],
    )
    series = [_front_series("this model", front, labelled=True), star]
    fronts = [("this model", front), *((f"paper, {name}", paper_front(name)) for name in PAPER_FRONTS)]
    columns = ["pi_order", "click_loss", "order_loss", *METRIC_LABELS, "click_mrr_20", "dominated"]
    return {
        "chart": chart(
            series,
            title="Pareto front of this model: order loss by click loss",
            description=f"{front.height} preferences. From pi = 0 to pi = 1, the click loss goes from "
            f"{losses[0, 0]:.3f} to {losses[-1, 0]:.3f} and the order loss from {losses[0, 1]:.3f} to "
            f"{losses[-1, 1]:.3f}.",
            x_label="click loss (nats per step)",
            y_label="order loss (nats per step)",
            size=LARGE,
        ),
        "series": series,
        "non_dominated": front.height - int(front["dominated"].sum()),
        "volume": contents.volume,
        "compared": [_scaled_front(name, each) for name, each in fronts],
        "points": front.select([name for name in columns if name in front.columns]),
    }


def _front_series(name: str, front: pl.DataFrame, *, labelled: bool = False) -> Series:
    """Points of a front, coloured by preference; dominated points are hollow."""
    orders = front["pi_order"].to_numpy()
    nearest = [int(np.abs(orders - at).argmin()) for at in _LABELLED_PI] if labelled else []
    return Series(
        name,
        front["click_loss"].to_list(),
        front["order_loss"].to_list(),
        colour=[viridis(0.92 * pi) for pi in orders],
        hollow=dominated(front.select("click_loss", "order_loss").to_numpy()).tolist(),
        tooltips=[
            f"pi {pi:.3f}: click loss {a:.4f}, order loss {b:.4f}"
            for pi, a, b in zip(orders, front["click_loss"], front["order_loss"], strict=True)
        ],
        labels={i: f"pi {orders[i]:.2f}" for i in nearest},
    )


def _scaled_front(name: str, front: pl.DataFrame) -> dict[str, Any]:
    """Name, chart and normalised hypervolume of a front, with each loss scaled to [0, 1]."""
    scaled = front.sort("pi_order").with_columns(
        ((pl.col(loss) - pl.col(loss).min()) / (pl.col(loss).max() - pl.col(loss).min())).fill_nan(0.0)
        for loss in ("click_loss", "order_loss")
    )
    volume = normalised_hypervolume(front.select("click_loss", "order_loss").to_numpy())
    picture = chart(
        [_front_series(name, scaled)],
        title=f"Front of {name}, losses scaled to 0 to 1",
        description=f"normalised hypervolume {volume:.3f}",
        x_label="scaled click loss",
        y_label="scaled order loss",
        x_range=(-0.06, 1.06),
        y_range=(-0.06, 1.06),
    )
    return {"name": name, "chart": picture, "hypervolume": volume}


def _metrics(contents: Contents) -> dict[str, Any]:
    front = contents.front.sort("pi_order")
    return {
        "ranks_trained": front["ranks_trained"].all(),
        "charts": {
            label: _metric_chart(front, column, label, contents.baselines) for column, label in METRIC_LABELS.items()
        },
    }


def _metric_chart(front: pl.DataFrame, column: str, label: str, baselines: pl.DataFrame) -> Markup | None:
    """A metric by preference with the best baseline as a reference line; None if the metric has no values."""
    if column not in front.columns or front[column].is_null().all():
        return None
    series = Series(
        label,
        front["pi_order"].to_list(),
        front[column].to_list(),
        hollow=front["dominated"].to_list(),
        tooltips=[
            f"pi {pi:.3f}: {value:.4f}" if value is not None else ""
            for pi, value in front.select("pi_order", column).iter_rows()
        ],
    )
    reference_lines = []
    measured = baselines.drop_nulls(column) if column in baselines.columns else pl.DataFrame()
    if measured.height:
        best = measured.sort(column, descending=True).row(0, named=True)
        reference_lines.append((float(best[column]), str(best["baseline"])))
    return chart(
        [series],
        title=f"{label} by preference",
        description=f"{front[column][0]} at the smallest pi, {front[column][-1]} at the largest",
        x_label="pi (weight on orders)",
        y_label=label,
        reference_lines=reference_lines,
        x_range=(-0.03, 1.03),
    )


def _point(contents: Contents) -> dict[str, Any]:
    ablation = contents.ablation.select(
        "input",
        *[pl.col(column).alias(label) for column, label in METRIC_LABELS.items()],
        pl.col("change").alias("change in click recall"),
    )
    alternatives = contents.alternatives.select(
        pl.col("objective").map_elements(metric_label, return_dtype=pl.String),
        pl.format("click recall loss ≤ {}", "max_click_recall_loss").alias("constraint"),
        pl.format("{} ({})", "pi", pl.col("value").map_elements(format_cell, return_dtype=pl.String)).alias("chosen"),
    )
    return {
        "point": contents.point,
        "sessions": min(ABLATION_SESSIONS, len(contents.prepared.test)),
        "ablation": ablation,
        "alternatives": alternatives.pivot("constraint", index="objective", values="chosen"),
    }


def _baselines(contents: Contents) -> dict[str, Any]:
    front, point = contents.front.sort("pi_order"), contents.point
    columns = [
        "click_recall_20",
        "click_mrr_20",
        "last_click_recall_20",
        "order_recall_20",
        "order_density",
        "recall_x_density",
    ]
    distance = (pl.col("pi_order") - point.pi_order).abs()
    chosen = front.filter(distance == distance.min())
    ours = [
        pl.DataFrame({"model": [name]}).hstack(row.head(1).select(columns))
        for name, row in (("this model, pi 0.00", front.head(1)), (f"this model, pi {point.pi_key}", chosen))
    ]
    theirs = contents.baselines.select(pl.col("baseline").alias("model"), *columns)
    measured = pl.concat([*ours, theirs], how="vertical_relaxed")
    return {
        "lost": contents.against_baselines.filter(pl.col("gain") <= 0)["metric"].to_list(),
        "measured": measured.rename({name: metric_label(name) for name in columns}),
    }


def _training(contents: Contents) -> dict[str, Any]:
    epochs = contents.epochs
    curves = []
    for quantity, label in (
        ("loss", "validation loss"),
        ("click_loss", "click loss (nats per step)"),
        ("order_loss", "order loss (nats per step)"),
        ("click_recall_20", "click recall@20 (validation sessions)"),
    ):
        series = _curves(epochs, quantity)
        if series:
            picture = chart(
                series,
                title=f"{label} by epoch",
                description="; ".join(f"{each.name}: {each.y[0]} to {each.y[-1]}" for each in series),
                x_label="epoch",
                y_label=label,
                x_range=(0.5, epochs.height + 0.5),
            )
            curves.append({"label": label, "chart": picture, "series": series})
    return {
        "epochs": epochs,
        "seconds": epochs["seconds"].sum() if "seconds" in epochs.columns else None,
        "kept_epoch": contents.config.get("epoch"),
        "curves": curves,
    }


def _curves(epochs: pl.DataFrame, quantity: str) -> list[Series]:
    """A loss or metric by epoch: on training batches, and on validation sessions at each preference."""
    x = epochs["epoch"].to_list()
    series = []
    if f"train_{quantity}" in epochs.columns and quantity != "loss":
        series.append(
            Series("training, sampled pi", x, epochs[f"train_{quantity}"].to_list(), COLOURS[-1], "cross", "2 3")
        )
    columns = [name for name in epochs.columns if name.startswith(f"validation_{quantity}")]
    if quantity != "loss":
        columns = [name for name in columns if name.startswith(f"validation_{quantity}_")]
    for i, column in enumerate(columns):
        name = column.removeprefix(f"validation_{quantity}").lstrip("_")
        series.append(
            Series(
                f"validation, pi {name}" if name else "validation, all pi",
                x,
                epochs[column].to_list(),
                COLOURS[i % 6],
                MARKERS[i % 5],
                DASHES[i % len(DASHES)],
            )
        )
    return series


def _data(contents: Contents) -> dict[str, Any]:
    prepared, statistics = contents.prepared, contents.prepared.statistics
    splits = [
        {
            "split": split,
            **statistics[split],
            "orders per session": statistics[split]["orders"] / max(1, statistics[split]["sessions"]),
        }
        for split in ("train", "test")
    ]
    lengths = prepared.train.lengths
    shares = [
        (name, float(((lengths >= low) & (lengths <= high)).mean())) for name, (low, high) in _LENGTH_BINS.items()
    ]
    counts = np.sort(np.bincount(np.asarray(prepared.train.items), minlength=len(prepared.vocabulary) + 1)[1:])[::-1]
    top = max(1, len(counts) // 100)
    return {
        "splits": pl.DataFrame(splits),
        "catalogue": len(prepared.vocabulary),
        "top": top,
        "top_share": counts[:top].sum() / max(1, counts.sum()),
        "test_start": statistics["split"],
        "lengths": bars(
            shares,
            title="Clicks per training session",
            description="; ".join(f"{name} clicks: {share:.1%}" for name, share in shares),
            x_label="clicks per session",
            y_label="share of training sessions",
        ),
        "dropped": pl.DataFrame(
            {"drop reason": list(statistics["dropped"]), "events": list(statistics["dropped"].values())},
            schema={"drop reason": pl.String, "events": pl.Int64},
        ),
    }


def _settings(contents: Contents) -> dict[str, Any]:
    config = contents.config
    return {
        "general": {name: value for name, value in config.items() if name not in ("model", "training")},
        "model": config["model"],
        "training": config["training"],
    }
