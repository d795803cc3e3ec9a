"""Baselines that cost nothing, in the same table as the model: what a shop already has.

    python -m multitron_core.baselines --sessions SESSIONS [--single-objective MODEL]

A baseline is a function from session prefixes to scored items; what it does not score ranks behind everything, so a
list may be shorter than k. A model that does not beat them is not worth deploying.

Sources: item-to-item co-visitation as in Linden, Smith, York, "Amazon.com Recommendations" (IEEE Internet Computing
2003); session kNN as in Ludewig, Jannach, "Evaluation of Session-based Recommendation Algorithms" (UMUAI 2018), V-SKNN.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from multitron_core.batches import Batch
from multitron_core.display import as_table
from multitron_core.encoded_sessions import EncodedSessions
from multitron_core.errors import MultitronError
from multitron_core.metrics import evaluation_batches, ranking_metrics, step_table
from multitron_core.single_objective import evaluate_single_objective

Scorer = Callable[[pl.DataFrame], pl.DataFrame]
"""Prefixes (`step` Int64, `item` Int32, `back` Int32: clicks between it and the step's end, 0 for the last one) to
scored items (`step` Int64, `item` Int32, `score` Float64), at most one row a step and item."""

NOT_LISTED = np.iinfo(np.int32).max
"""The rank of a target that a baseline does not score."""

_BLOCK_SESSIONS = 1024
_PAIRS_AT_A_TIME = 20_000_000


def popularity(train: EncodedSessions, *, listed: int = 100) -> Scorer:
    """The items that were clicked most, the same for everybody; equal counts by index.

    Args:
        train: the sessions that are counted.
        listed: items that are scored.
    """
    top = (
        _clicks(train)
        .group_by("item")
        .agg(pl.len().cast(pl.Float64).alias("score"))
        .sort("score", "item", descending=[True, False])
        .head(listed)
    )
    return lambda prefixes: prefixes.select("step").unique().join(top, how="cross")


def co_visitation(
    train: EncodedSessions,
    *,
    last: int = 5,
    own_items: Literal["excluded", "counted", "first"] = "first",
    neighbours: int = 50,
) -> Scorer:
    """Items seen in the same sessions as the prefix's last items: score = sum over those of the sessions they share.

    Args:
        train: the sessions that are counted.
        last: how many of the prefix's last clicks count, a repeated item once.
        own_items: what becomes of those items themselves. "excluded" never lists them, "counted" gives them the
            sessions they are in (the diagonal of the co-visitation matrix), "first" lists them before all others.
        neighbours: the strongest neighbours that are kept an item.
    """
    table = _neighbours(train, neighbours)
    sessions_of = _clicks(train).unique().group_by("item").agg(pl.len().cast(pl.Float64).alias("score"))

    def score(prefixes: pl.DataFrame) -> pl.DataFrame:
        recent = prefixes.filter(pl.col("back") < last).select("step", "item").unique()
        shared = recent.join(table, on="item").select("step", pl.col("neighbour").alias("item"), "score")
        if own_items == "excluded":
            return _summed(shared).join(recent, on=["step", "item"], how="anti")
        if own_items == "counted":
            own = recent.join(sessions_of, on="item").select("step", "item", "score")
        else:
            own = recent.with_columns(pl.lit(1.0 + len(train) * last).alias("score"))  # above every sum
        return _summed(pl.concat([shared, own]))

    return score


def session_neighbours(
    train: EncodedSessions, *, last: int = 10, candidates: int = 200, nearest: int = 100, own_items: bool = True
) -> Scorer:
    """What the most similar recent sessions hold.

    Similarity of a session to the prefix: the sum over shared items of the weight of their last click in the prefix,
    1 for the last click, falling in equal steps to 1/`last`, divided by the root of the session's distinct items. An
    item's score is the sum of the similarities of the nearest sessions that hold it.

    Args:
        train: the sessions to search, in chronological order.
        last: how many of the prefix's last clicks count.
        candidates: the most recent sessions of each item that are considered.
        nearest: sessions that vote.
        own_items: whether the prefix's own items may be listed.
    """
    clicks = _clicks(train).unique()
    sizes = clicks.group_by("session").agg(pl.len().sqrt().alias("norm"))
    recent_of = (
        clicks.sort("item", "session", descending=[False, True])
        .filter(pl.int_range(pl.len()).over("item") < candidates)
        .join(sizes, on="session")
    )

    def score(prefixes: pl.DataFrame) -> pl.DataFrame:
        recent = (
            prefixes.filter(pl.col("back") < last)
            .group_by("step", "item")
            .agg((1.0 - pl.col("back").min() / last).alias("weight"))
        )
        similar = (
            recent.join(recent_of, on="item")
            .group_by("step", "session")
            .agg((pl.col("weight") / pl.col("norm")).sum().alias("similarity"))
            .sort("step", "similarity", "session", descending=[False, True, True])
        )
        voting = similar.filter(pl.int_range(pl.len()).over("step") < nearest)
        scored = _summed(voting.join(clicks, on="session").select("step", "item", pl.col("similarity").alias("score")))
        return scored if own_items else scored.join(recent, on=["step", "item"], how="anti")

    return score


def default_baselines(train: EncodedSessions) -> dict[str, Scorer]:
    """The baselines that a model is measured against, by name."""
    return {
        "popularity": popularity(train),
        "co-visitation, last item": co_visitation(train, last=1, own_items="excluded"),
        "co-visitation, last 5, own counted": co_visitation(train, own_items="counted"),
        "co-visitation, last 5, own first": co_visitation(train, own_items="first"),
        "session neighbours": session_neighbours(train),
    }


def evaluate_baselines(
    train: EncodedSessions,
    test: EncodedSessions,
    *,
    baselines: Mapping[str, Scorer] | None = None,
    max_length: int = 50,
    k: int = 20,
) -> pl.DataFrame:
    """The metrics of `metrics.ranking_metrics` for each baseline on the steps that a model is evaluated on.

    Args:
        train: the sessions that baselines are made of.
        test: the sessions to evaluate on, encoded with the same vocabulary.
        baselines: by name; `default_baselines(train)` when None.
        max_length: clicks a model reads; decides which steps there are.
        k: the length of the lists.

    Returns:
        `baseline` and the metrics, a row a baseline.
    """
    batches = evaluation_batches(test, max_length, batch_sessions=_BLOCK_SESSIONS)
    steps = step_table(batches)
    rows = []
    for name, scorer in (default_baselines(train) if baselines is None else baselines).items():
        ranks = np.concatenate([baseline_ranks(scorer, batch) for batch in batches])
        rows.append({"baseline": name, **ranking_metrics(steps.with_columns(pl.Series("rank", ranks)), k=k)})
    return pl.DataFrame(rows, infer_schema_length=None)


def against_baselines(front: pl.DataFrame, baselines: pl.DataFrame) -> pl.DataFrame:
    """The best of a front beside the best baseline, metric by metric.

    Args:
        front: what `evaluate_front` gives; points whose ranks nothing trained (`ranks_trained`) do not count.
        baselines: what `evaluate_baselines` gave for the same steps.

    Returns:
        `metric`, `model`, `pi_order` (of the model's best point), `best_baseline`, `baseline`, `gain` (model minus
        baseline), a row for each metric that both have a value of.
    """
    points = front.filter("ranks_trained")
    rows = []
    for metric in baselines.columns:
        if metric == "baseline" or metric not in points.columns:
            continue
        ours = points.drop_nulls(metric).sort(metric, descending=True).head(1).to_dicts()
        theirs = baselines.drop_nulls(metric).sort(metric, descending=True).head(1).to_dicts()
        for best, other in zip(ours, theirs, strict=False):  # none where a side has no value
            rows.append(
                {
                    "metric": metric,
                    "model": best[metric],
                    "pi_order": best["pi_order"],
                    "best_baseline": other["baseline"],
                    "baseline": other[metric],
                    "gain": best[metric] - other[metric],
                }
            )
    schema = {"metric": pl.String, "model": pl.Float64, "pi_order": pl.Float64}
    schema |= {"best_baseline": pl.String, "baseline": pl.Float64, "gain": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def baseline_ranks(scorer: Scorer, batch: Batch) -> np.ndarray:
    """Ranks of a batch's targets, int32 [steps]: 1 + higher scores + equal ones of a smaller index, or `NOT_LISTED`."""
    scored = scorer(prefixes_of(batch))
    targets = pl.DataFrame({"step": np.arange(len(batch.targets)), "target": batch.targets.astype(np.int32)})
    listed = scored.join(targets, left_on=["step", "item"], right_on=["step", "target"]).select(
        "step", pl.col("item").alias("target"), pl.col("score").alias("target_score")
    )
    before = (pl.col("score") > pl.col("target_score")) | (
        (pl.col("score") == pl.col("target_score")) & (pl.col("item") <= pl.col("target"))
    )
    ranks = scored.join(listed, on="step").filter(before).group_by("step").agg(pl.len().cast(pl.Int32).alias("rank"))
    return (
        targets.join(ranks, on="step", how="left", maintain_order="left")["rank"].fill_null(int(NOT_LISTED)).to_numpy()
    )


def prefixes_of(batch: Batch) -> pl.DataFrame:
    """The prefix of every step of a batch: `step`, `item`, `back`, see `Scorer`."""
    places = np.arange(len(batch.inputs)) - batch.starts[batch.session_of_step]  # clicks before the step's own
    lengths = places + 1
    steps = np.repeat(np.arange(len(batch.inputs)), lengths)
    back = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pl.DataFrame(
        {"step": steps, "item": batch.inputs[steps - back].astype(np.int32), "back": back.astype(np.int32)}
    )


def _neighbours(train: EncodedSessions, kept: int) -> pl.DataFrame:
    """`item`, `neighbour`, `score` (sessions that hold both), the `kept` strongest an item, equal ones by index."""
    clicks = _clicks(train).unique(maintain_order=True)
    sizes = clicks.group_by("session", maintain_order=True).len()["len"].cast(pl.Int64)
    part = (sizes**2).cum_sum() // _PAIRS_AT_A_TIME  # sessions whose pairs fit in memory together
    parts = clicks.with_columns(pl.Series("part", np.repeat(part.to_numpy(), sizes.to_numpy())))
    counts = []
    for chunk in parts.partition_by("part", include_key=False):
        pairs = chunk.join(chunk.rename({"item": "neighbour"}), on="session")
        counts.append(pairs.filter(pl.col("item") != pl.col("neighbour")).group_by("item", "neighbour").len("score"))
    return (
        pl.concat(counts)
        .group_by("item", "neighbour")
        .agg(pl.col("score").sum().cast(pl.Float64))
        .sort("item", "score", "neighbour", descending=[False, True, False])
        .filter(pl.int_range(pl.len()).over("item") < kept)
    )


def _clicks(sessions: EncodedSessions) -> pl.DataFrame:
    """`session` Int32, `item` Int32, a row a click."""
    rows = np.repeat(np.arange(len(sessions), dtype=np.int32), sessions.lengths)
    return pl.DataFrame({"session": rows, "item": np.asarray(sessions.items, dtype=np.int32)})


def _summed(scored: pl.DataFrame) -> pl.DataFrame:
    return scored.group_by("step", "item").agg(pl.col("score").sum())


def main(arguments: list[str] | None = None) -> int:
    """Print the baselines' table; 1 when something has to be mended."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.baselines", description="The baselines' metrics.")
    parser.add_argument("--sessions", type=Path, required=True, help="folder of prepared sessions (train/ and test/)")
    parser.add_argument("--k", type=int, default=20, help="length of the lists")
    parser.add_argument(
        "--single-objective", type=Path, metavar="MODEL", help="a model folder, trained with the setting trained_pi"
    )
    given = parser.parse_args(arguments)
    try:
        single = given.single_objective and evaluate_single_objective(given.single_objective, given.sessions, k=given.k)
        train, test = (EncodedSessions.load(given.sessions / split) for split in ("train", "test"))
        table = evaluate_baselines(train, test, k=given.k)
        if single is not None:
            table = pl.concat([table, single.select(table.columns)])
    except MultitronError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_table(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
