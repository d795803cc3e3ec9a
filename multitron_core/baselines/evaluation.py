"""Baselines that cost nothing, in the same table as the model: what a shop already has.

    python -m multitron_core.baselines --sessions SESSIONS [--single-objective MODEL]

A baseline is a function from session prefixes to scored items; what it does not score ranks behind everything, so a
list may be shorter than k. A model that does not beat them is not worth deploying.

Sources: item-to-item co-visitation as in Linden, Smith, York, "Amazon.com Recommendations" (IEEE Internet Computing
2003); session kNN as in Ludewig, Jannach, "Evaluation of Session-based Recommendation Algorithms" (UMUAI 2018), V-SKNN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from multitron_core.baselines.counts import co_visitation, popularity
from multitron_core.baselines.scorer import Scorer
from multitron_core.baselines.session_knn import session_neighbours
from multitron_core.metrics.ranking import ranking_metrics
from multitron_core.metrics.steps import evaluation_batches, step_table
from multitron_core.sessions.batches import Batch
from multitron_core.sessions.encoded import EncodedSessions

NOT_LISTED = np.iinfo(np.int32).max
"""The rank of a target that a baseline does not score."""

_BLOCK_SESSIONS = 1024


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
