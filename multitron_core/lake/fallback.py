"""Fallback list for visitors without history: the list that agrees best with the lists of the night's sessions.

A session transformer gives no scores for an empty session. The visitor is therefore treated as a random session of the
night. An item scores its mean discounted gain in the night's lists at the same preference,

    score(i) = 1/S * sum over sessions s of 1 / log2(rank of i in s + 1)        (0 where i is not in the list of s),

where S is the number of sessions, with the discount of DCG (Järvelin and Kekäläinen 2002,
https://doi.org/10.1145/582415.582418). Among all lists of k items, the k items with the largest scores have the
largest mean discounted gain. The list depends on the preference like the sessions' lists, needs no second pass through
the model, and does not depend on the order of the rows.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.replace_where import checked_date
from multitron_core.lake.tables import Tables
from multitron_core.preference.keys import pi_key

EVERYBODY = "all"
"""Audience of the list for all visitors without history."""


def fallback_list(
    tables: Tables, run_date: date | str, pi: str, k: int, *, delta_version: int | None = None
) -> pl.DataFrame:
    """The k items with the largest mean discounted gain in a night's lists.

    Args:
        tables: Contains the night's `recommendations`.
        run_date, pi: Partition with the lists, published or not.
        k: Number of items.
        delta_version: Delta version to read; None for the newest.

    Returns:
        k rows with the columns `audience` ("all"), `rank` (Int16), `item_id` and `score` (Float32, in (0, 1]). Items of
        equal score are sorted by id.

    Raises:
        InputError: The partition does not exist, or its lists have fewer than k distinct items.
    """
    run_date, pi = checked_date(run_date), pi_key(pi)
    opened = tables.open("recommendations", delta_version)
    places = (
        pl.scan_delta(opened)
        .filter(pl.col("run_date") == run_date, pl.col("pi") == pi)
        .group_by("item_id", "rank")
        .len()
        .collect(engine="streaming")
        .sort("item_id", "rank")
    )
    items = places["item_id"].unique(maintain_order=True)
    if len(items) < max(k, 1):
        raise InputError(
            "the night's lists have too few items for a fallback list",
            where=f"{opened.table_uri}, run_date {run_date}, pi {pi}",
            found=len(items),
            hint=f"score the sessions of that night first, with at least {k} items per list",
        )
    sessions = int(places.filter(rank=1)["len"].sum())
    # bincount adds in the order of the sorted rows, so that the sums are bit-identical in every run.
    gains = places["len"].to_numpy() / np.log2(places["rank"].to_numpy().astype(np.float64) + 1.0)
    scores = np.bincount(places["item_id"].rle_id().to_numpy(), weights=gains) / sessions
    return (
        pl.DataFrame({"audience": EVERYBODY, "item_id": items, "score": scores.astype(np.float32)})
        .sort("score", "item_id", descending=[True, False])
        .head(k)
        .select("audience", pl.int_range(1, pl.len() + 1, dtype=pl.Int16).alias("rank"), "item_id", "score")
    )
