"""A report's contents as one HTML page."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.front.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.front.volume import dominated, normalised_hypervolume
from multitron_core.report.charts import COLOURS, DASHES, LARGE, MARKERS, Series, bars, chart, legend, viridis
from multitron_core.report.contents import Contents
from multitron_core.report.html import METRICS, cell, more, pairs, table, words
from multitron_core.report.measurements import ABLATION_SESSIONS, Example

STYLE = Path(__file__).with_name("style.css")
SECTIONS = {
    "front": "The front",
    "metrics": "Metrics against the preference",
    "point": "The operating point",
    "baselines": "Against the baselines",
    "examples": "Example sessions",
    "training": "Training",
    "data": "The data",
    "settings": "Settings",
}
_NAMED_AT = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Weights whose nearest points carry their preference as a label."""


def page(contents: Contents) -> str:
    """The whole document; it names no address and runs no script."""
    described = contents.described
    title = f"MultiTRON model {described['version']}"
    sections = {
        "front": _front(contents),
        "metrics": _metrics(contents),
        "point": _point(contents),
        "baselines": _baselines(contents),
        "examples": _examples(contents),
        "training": _training(contents),
        "data": _data(contents),
        "settings": _settings(contents),
    }
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in sections)
    body = "".join(
        f'<section id="{name}"><h2>{escape(SECTIONS[name])}</h2>{html}</section>' for name, html in sections.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE.read_text()}</style></head><body><header><h1>{escape(title)}</h1>"
        f"<p>Preset <b>{escape(str(described.get('preset', 'unknown')))}</b>, trained once on sampled preferences; "
        "pi is the weight on orders, 0 ranks for clicks, 1 for orders.</p></header>"
        f"<nav>{links}</nav><main>{_headline(contents)}{body}</main></body></html>"
    )


def _headline(contents: Contents) -> str:
    """The figures that people ask for first."""
    front, point, volume = contents.front, contents.point, contents.volume
    clicks = front.sort("pi_order").row(0, named=True)
    best = {row["metric"]: row for row in contents.against_baselines.iter_rows(named=True)}

    def beside(metric: str) -> str:
        row = best.get(metric)
        return f"best baseline {row['baseline']:.3f}, {row['best_baseline']}" if row else "not measured"

    trained = front.filter(pl.col("ranks_trained"))
    order_recalls = trained["order_recall_20"].drop_nulls().to_list()
    tiles = [
        ("click recall@20 at pi 0.00", f"{clicks['click_recall_20']:.3f}", beside("click_recall_20")),
        (
            "best order recall@20",
            f"{max(order_recalls):.3f}" if order_recalls else "none",
            beside("order_recall_20"),
        ),
        (
            "normalised hypervolume",
            f"{volume.normalised.value:.3f}",
            f"{volume.normalised.level:.0%} interval {volume.normalised.low:.3f} to {volume.normalised.high:.3f}",
        ),
        (
            "chosen pi",
            point.pi_key,
            f"{words(point.objective)} {point.value:.4f}, costs {point.click_recall_loss:.4f} click recall",
        ),
    ]
    return '<dl class="tiles">' + "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><p>{escape(note)}</p></div>"
        for name, value, note in tiles
    ) + "</dl>"  # fmt: skip


def _front(contents: Contents) -> str:
    front, volume, point = contents.front.sort("pi_order"), contents.volume, contents.point
    losses = front.select("click_loss", "order_loss").to_numpy()
    chosen = int(np.abs(front["pi_order"].to_numpy() - point.pi_order).argmin())
    ours = _front_series("this model", front, labelled=True)
    star = Series(
        f"operating point, pi {point.pi_key}",
        [losses[chosen, 0]],
        [losses[chosen, 1]],
        marker="star",
        line=False,
        colour="#000",
        hints=[f"operating point, pi {point.pi_key}"],
    )
    kept = front.height - int(front["dominated"].sum())
    large = chart(
        [*ours, star],
        title="Click loss against order loss of this model",
        description=f"{front.height} preferences; as the weight on orders rises from 0 to 1 the click loss goes from "
        f"{losses[0, 0]:.3f} to {losses[-1, 0]:.3f} and the order loss from {losses[0, 1]:.3f} to {losses[-1, 1]:.3f}.",
        x_label="click loss (nats a step)",
        y_label="order loss (nats a step)",
        size=LARGE,
    )
    beside = [("this model", front), *((f"paper, {name}", paper_front(name)) for name in PAPER_FRONTS)]
    small = "".join(_scaled_front(name, each) for name, each in beside)
    return (
        "<p>Each point is one preference on the same test sessions. Lower is better on both axes; a hollow point is "
        "dominated: another one is no worse in both losses and better in one. Darker means more weight on clicks, and "
        "some points carry their pi.</p>"
        f'<figure class="large">{large}{legend([*ours, star])}</figure>'
        f"<p>{kept} of {front.height} points are not dominated. Hypervolume, normalised by the front's own smallest "
        f"and largest losses: <b>{escape(str(volume.normalised))}</b>. Raw, with the declared reference point "
        f"(click loss, order loss) = ({', '.join(f'{value:.4g}' for value in volume.reference)}): "
        f"<b>{escape(str(volume.raw))}</b>. Intervals are {volume.raw.level:.0%}, from resampled sessions.</p>"
        "<h3>Beside the paper's fronts</h3>"
        "<p>Absolute losses depend on data and negatives; what can be compared is the shape. Here every loss is mapped "
        "to 0 (its front's smallest) to 1 (its largest). The paper's points are digitised from its Figure 1.</p>"
        f'<div class="grid">{small}</div>{more("The points as a table", table(_front_rows(front)))}'
    )


def _front_series(name: str, front: pl.DataFrame, *, labelled: bool = False) -> list[Series]:
    """A front's points, coloured by preference, and a legend entry for the dominated ones."""
    orders = front["pi_order"].to_numpy()
    beaten = dominated(front.select("click_loss", "order_loss").to_numpy()).tolist()
    labels = {}
    if labelled:
        labels = {
            int(np.abs(orders - at).argmin()): f"pi {orders[int(np.abs(orders - at).argmin())]:.2f}" for at in _NAMED_AT
        }
    points = Series(
        name,
        front["click_loss"].to_list(),
        front["order_loss"].to_list(),
        colour=[viridis(0.92 * pi) for pi in orders],
        hollow=beaten,
        hints=[
            f"pi {pi:.3f}: click loss {a:.4f}, order loss {b:.4f}"
            for pi, a, b in zip(orders, front["click_loss"], front["order_loss"], strict=True)
        ],
        labels=labels,
    )
    return [points]


def _scaled_front(name: str, front: pl.DataFrame) -> str:
    scaled = front.sort("pi_order").with_columns(
        ((pl.col(loss) - pl.col(loss).min()) / (pl.col(loss).max() - pl.col(loss).min())).fill_nan(0.0)
        for loss in ("click_loss", "order_loss")
    )
    volume = normalised_hypervolume(front.select("click_loss", "order_loss").to_numpy())
    picture = chart(
        _front_series(name, scaled),
        title=f"Front of {name}, each loss from 0 to 1",
        description=f"normalised hypervolume {volume:.3f}",
        x_label="click loss, 0 best",
        y_label="order loss, 0 best",
        x_range=(-0.06, 1.06),
        y_range=(-0.06, 1.06),
    )
    return f"<figure><figcaption><b>{escape(name)}</b>, hypervolume {volume:.3f}</figcaption>{picture}</figure>"


def _front_rows(front: pl.DataFrame) -> pl.DataFrame:
    wanted = ["pi_order", "click_loss", "order_loss", *METRICS, "click_mrr_20", "dominated"]
    return front.select([name for name in wanted if name in front.columns])


def _metrics(contents: Contents) -> str:
    front = contents.front.sort("pi_order")
    figures = []
    for column, label in METRICS.items():
        if column not in front.columns or front[column].is_null().all():
            figures.append(
                f"<figure><figcaption>{escape(label)}: the test sessions have no orders</figcaption></figure>"
            )
            continue
        series = Series(
            label,
            front["pi_order"].to_list(),
            front[column].to_list(),
            hollow=front["dominated"].to_list(),
            hints=[
                f"pi {pi:.3f}: {value:.4f}" if value is not None else ""
                for pi, value in front.select("pi_order", column).iter_rows()
            ],
        )
        levels = []
        measured = contents.baselines.drop_nulls(column) if column in contents.baselines.columns else pl.DataFrame()
        if measured.height:
            best = measured.sort(column, descending=True).row(0, named=True)
            levels.append((float(best[column]), str(best["baseline"])))
        picture = chart(
            [series],
            title=f"{label} against the weight on orders",
            description=f"from {front[column][0]} at the smallest weight to {front[column][-1]} at the largest",
            x_label="weight on orders, pi",
            y_label=label,
            levels=levels,
            x_range=(-0.03, 1.03),
        )
        figures.append(f"<figure><figcaption><b>{escape(label)}</b></figcaption>{picture}</figure>")
    untrained = "" if front["ranks_trained"].all() else " At pi = 1 nothing trained the ranks of most items."
    return (
        "<p>Exact, over the full catalogue, as ratios of sums over all test steps. The dashed line is the best "
        f"baseline; hollow points are dominated in losses.{untrained}</p><div class='grid'>{''.join(figures)}</div>"
    )


def _point(contents: Contents) -> str:
    point = contents.point
    renamed = contents.ablation.select(
        pl.col("told").alias("the model is told"),
        *[pl.col(column).alias(label) for column, label in METRICS.items()],
        pl.col("change").alias("change of click recall"),
    )
    steps = min(ABLATION_SESSIONS, len(contents.prepared.test))
    return (
        f"<p>Chosen: <b>pi {point.pi_key}</b>, the best {words(point.objective)} among the points that are not "
        f"dominated and give up at most {point.max_click_recall_loss:g} click recall. It has "
        f"{words(point.objective)} {point.value:.4f} and click recall {point.click_recall:.4f}, "
        f"{point.click_recall_loss:.4f} less than the best.</p>"
        "<h3>What this point rests on</h3>"
        f"<p>The same model and the same steps of the first {steps:,} test sessions, with something kept from it.</p>"
        f"{table(renamed)}<h3>What other constraints would choose</h3>"
        "<p>The pi, and in brackets what the objective is there.</p>"
        f"{table(_choices(contents.choices))}"
    )


def _choices(choices: pl.DataFrame) -> pl.DataFrame:
    """A row an objective, a column an allowance of click recall."""
    cells = choices.select(
        pl.col("objective").map_elements(words, return_dtype=pl.String).alias("the best ..."),
        pl.format("giving up at most {}", pl.col("max_click_recall_loss")).alias("allowed"),
        pl.format("{} ({})", "pi", pl.col("value").map_elements(cell, return_dtype=pl.String)).alias("chosen"),
    )
    return cells.pivot("allowed", index="the best ...", values="chosen")


def _baselines(contents: Contents) -> str:
    front, point = contents.front.sort("pi_order"), contents.point
    columns = [
        "click_recall_20",
        "click_mrr_20",
        "last_click_recall_20",
        "order_recall_20",
        "order_density",
        "recall_x_density",
    ]
    chosen = front.filter(
        (pl.col("pi_order") - point.pi_order).abs() == (pl.col("pi_order") - point.pi_order).abs().min()
    )
    ours = [
        pl.DataFrame({"who": [name]}).hstack(row.head(1).select(columns))
        for name, row in (("this model, pi 0.00", front.head(1)), (f"this model, pi {point.pi_key}", chosen))
    ]
    theirs = contents.baselines.select(pl.col("baseline").alias("who"), *columns)
    measured = pl.concat([*ours, theirs], how="vertical_relaxed").rename({name: words(name) for name in columns})
    beaten = contents.against_baselines
    lost = [words(row["metric"]) for row in beaten.iter_rows(named=True) if row["gain"] <= 0]
    verdict = (
        f"No point of the front beats the best baseline in {', '.join(lost)}."
        if lost
        else "The best of the front is above the best baseline in every metric."
    )
    return f"<p>{escape(verdict)} The same test steps, the same formulas.</p>{table(measured)}"


def _examples(contents: Contents) -> str:
    return (
        "<p>Test sessions without their last click, which the model has to find. In a list: <b>✓</b> the item that was "
        "clicked next, <b>↺</b> one that the session has clicked before, <b>+</b> one that is not in the list of the "
        f"first column.</p>{''.join(_example(each) for each in contents.examples)}"
    )


def _example(example: Example) -> str:
    first = next(iter(example.lists.values()))
    columns = []
    for pi, items in example.lists.items():
        entries = []
        for item in items:
            marks = [
                mark
                for mark, holds in (
                    ("✓", item == example.next_item),
                    ("↺", item in example.clicks),
                    ("+", item not in first),
                )
                if holds
            ]
            entries.append(
                f"<li{' class=hit' if item == example.next_item else ''}>{escape(str(item))}"
                f"<span>{' '.join(marks)}</span></li>"
            )
        columns.append(f"<div><h4>pi {pi}</h4><ol>{''.join(entries)}</ol></div>")
    clicks = " → ".join(escape(str(item)) for item in example.clicks)
    outcome = f"{escape(str(example.next_item))}{', then ordered it' if example.ordered else ''}"
    return (
        f'<article><h3>Session {escape(example.session_id)}</h3><p class="clicks">clicked {clicks}<br>'
        f"and next clicked <b>{outcome}</b></p><div class='lists'>{''.join(columns)}</div></article>"
    )


def _training(contents: Contents) -> str:
    epochs = contents.epochs
    figures = []
    for what, label in (
        ("loss", "validation loss"),
        ("click_loss", "click loss (nats a step)"),
        ("order_loss", "order loss (nats a step)"),
        ("click_recall_20", "click recall@20, held-out sessions"),
    ):
        series = _curves(epochs, what)
        if series:
            picture = chart(
                series,
                title=f"{label} by epoch",
                description="; ".join(f"{each.name}: {each.y[0]} to {each.y[-1]}" for each in series),
                x_label="epoch",
                y_label=label,
                x_range=(0.5, epochs.height + 0.5),
            )
            figures.append(f"<figure><figcaption><b>{escape(label)}</b></figcaption>{picture}{legend(series)}</figure>")
    seconds = f" in {epochs['seconds'].sum():,.0f} seconds" if "seconds" in epochs.columns else ""
    kept = contents.described.get("epoch")
    which = f"; the weights are those after epoch {kept}" if kept else ""
    return (
        f"<p>{epochs.height} epochs{seconds}{which}.</p><div class='grid'>{''.join(figures)}</div>"
        f"{more('The epochs as a table', table(epochs))}"
    )


def _curves(epochs: pl.DataFrame, what: str) -> list[Series]:
    """A quantity by epoch: in training, and on held-out sessions at each preference."""
    x = epochs["epoch"].to_list()
    series = []
    if f"train_{what}" in epochs.columns and what != "loss":
        series.append(Series("training, sampled pi", x, epochs[f"train_{what}"].to_list(), COLOURS[-1], "cross", "2 3"))
    columns = [name for name in epochs.columns if name.startswith(f"validation_{what}")]
    if what != "loss":
        columns = [name for name in columns if name.startswith(f"validation_{what}_")]
    for i, column in enumerate(columns):
        name = column.removeprefix(f"validation_{what}").lstrip("_")
        series.append(
            Series(
                f"held out, pi {name}" if name else "held out, all pi",
                x,
                epochs[column].to_list(),
                COLOURS[i % 6],
                MARKERS[i % 5],
                DASHES[i % len(DASHES)],
            )
        )
    return series


def _data(contents: Contents) -> str:
    prepared, statistics = contents.prepared, contents.prepared.statistics
    splits = pl.DataFrame(
        [
            {
                "split": part,
                **statistics[part],
                "orders a session": statistics[part]["orders"] / max(1, statistics[part]["sessions"]),
            }
            for part in ("train", "test")
        ]
    )
    lengths = prepared.train.lengths
    bins = [
        ("2", 2, 2),
        ("3", 3, 3),
        ("4", 4, 4),
        ("5", 5, 5),
        ("6–8", 6, 8),
        ("9–15", 9, 15),
        ("16–50", 16, 50),
        ("> 50", 51, 10**9),
    ]
    shares = [(name, float(((lengths >= low) & (lengths <= high)).mean())) for name, low, high in bins]
    counts = np.sort(np.bincount(np.asarray(prepared.train.items), minlength=len(prepared.vocabulary) + 1)[1:])[::-1]
    top = max(1, len(counts) // 100)
    dropped = pl.DataFrame(
        {"dropped because": list(statistics["dropped"]), "events": list(statistics["dropped"].values())},
        schema={"dropped because": pl.String, "events": pl.Int64},
    )
    picture = bars(
        shares,
        title="Clicks a training session",
        description="; ".join(f"{name} clicks: {share:.1%}" for name, share in shares),
        x_label="clicks a session",
        y_label="share of the training sessions",
    )
    return (
        f"{table(splits)}<p>{len(prepared.vocabulary):,} items; the most clicked 1 % of them ({top:,}) take "
        f"{counts[:top].sum() / max(1, counts.sum()):.1%} of the training clicks. Test sessions begin at "
        f"{escape(str(statistics['split'] or 'the published split'))}.</p>"
        f'<div class="grid"><figure><figcaption><b>Clicks a training session</b></figcaption>{picture}</figure>'
        f"<div>{table(dropped)}</div></div>"
    )


def _settings(contents: Contents) -> str:
    described = contents.described
    rest = {name: value for name, value in described.items() if name not in ("model", "training")}
    return (
        f"{table(pairs(rest))}<div class='grid'><div><h3>Model</h3>{table(pairs(described['model']))}</div>"
        f"<div><h3>Training</h3>{table(pairs(described['training']))}</div></div>"
    )
