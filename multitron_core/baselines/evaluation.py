"""Measure baselines on the same steps and with the same metrics as a model.

A baseline is a function from session prefixes to scored items (`BaselineScorer`). Items without a score rank behind all
others, so a list may be shorter than k.

Sources: item-to-item co-visitation as in Linden, Smith and York, "Amazon.com Recommendations" (IEEE Internet Computing
2003); session kNN as V-SKNN in Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms" (UMUAI
2018).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from multitron_core.baselines.counts import co_visitation, popularity
from multitron_core.baselines.scorer import BaselineScorer
from multitron_core.baselines.session_knn import session_neighbours
from multitron_core.metrics.ranking import ranking_metrics
from multitron_core.metrics.steps import evaluation_batches, step_table
from multitron_core.sessions.batches import Batch
from multitron_core.sessions.encoded import EncodedSessions

NOT_LISTED = np.iinfo(np.int32).max
"""Rank of a target that the baseline does not score."""

_BLOCK_SESSIONS = 1024


def default_baselines(train: EncodedSessions) -> dict[str, BaselineScorer]:
    """The baselines that a model is compared with, by name."""
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
    baselines: Mapping[str, BaselineScorer] | None = None,
    max_length: int = 50,
    k: int = 20,
) -> pl.DataFrame:
    """Ranking metrics of each baseline on the steps that a model is evaluated on.

    Args:
        train: Sessions that the default baselines are computed from.
        test: Sessions to evaluate, encoded with the same vocabulary.
        baselines: Baselines by name; `default_baselines(train)` if None.
        max_length: Maximum number of steps per session, as for the model.
        k: List length of the metrics.

    Returns:
        One row per baseline: `baseline` and the metrics of `metrics.ranking.ranking_metrics`.

    Raises:
        InputError: No session of `test` has two clicks.
    """
    batches = evaluation_batches(test, max_length, batch_sessions=_BLOCK_SESSIONS)
    steps = step_table(batches)
    rows = []
    for name, scorer in (default_baselines(train) if baselines is None else baselines).items():
        ranks = np.concatenate([baseline_ranks(scorer, batch) for batch in batches])
        rows.append({"baseline": name, **ranking_metrics(steps.with_columns(pl.Series("rank", ranks)), k=k)})
    return pl.DataFrame(rows, infer_schema_length=None)


def against_baselines(front: pl.DataFrame, baselines: pl.DataFrame) -> pl.DataFrame:
    """Compare the best point of a front with the best baseline, metric by metric.

    Args:
        front: Table as `evaluate_front` returns it; only points with trained ranks are used.
        baselines: Table as `evaluate_baselines` returns it for the same steps.

    Returns:
        One row per metric for which both have a value: `metric`; `model` and `pi_order`, the best value of the front
        and its preference; `baseline` and `best_baseline`, the best value of the baselines and its name; `gain`,
        `model` minus `baseline`.
    """
    points = front.filter("ranks_trained")
    rows = []
    for metric in baselines.columns:
        if metric == "baseline" or metric not in points.columns:
            continue
        best_points = points.drop_nulls(metric).sort(metric, descending=True).head(1).to_dicts()
        best_baselines = baselines.drop_nulls(metric).sort(metric, descending=True).head(1).to_dicts()
        for point, baseline in zip(best_points, best_baselines, strict=False):  # no row if either side has no value
            rows.append(
                {
                    "metric": metric,
                    "model": point[metric],
                    "pi_order": point["pi_order"],
                    "best_baseline": baseline["baseline"],
                    "baseline": baseline[metric],
                    "gain": point[metric] - baseline[metric],
                }
            )
    schema = {"metric": pl.String, "model": pl.Float64, "pi_order": pl.Float64}
    schema |= {"best_baseline": pl.String, "baseline": pl.Float64, "gain": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def baseline_ranks(scorer: BaselineScorer, batch: Batch) -> np.ndarray:
    """Ranks of the targets of a batch, int32 [steps].

    1 + the number of items with a higher score, or an equal score and a smaller index; `NOT_LISTED` for a target
    without a score.
    """
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
    """Prefixes of all steps of a batch, in the input format of `BaselineScorer`."""
    places = np.arange(len(batch.inputs)) - batch.starts[batch.session_of_step]  # place of each step in its session
    lengths = places + 1
    steps = np.repeat(np.arange(len(batch.inputs)), lengths)
    back = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pl.DataFrame(
        {"step": steps, "item": batch.inputs[steps - back].astype(np.int32), "back": back.astype(np.int32)}
    )
