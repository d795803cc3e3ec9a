"""What to show a visitor without history: the list that agrees best with what the night's sessions are shown.

A session transformer says nothing about an empty session. The visitor is taken for one of the night's sessions, drawn
at random: an item is worth the discounted gain that it has in the lists of that night at the same preference,

    score(i) = 1/S * sum over sessions s of 1 / log2(rank of i in s + 1)        (0 where i is not in the list of s),

the discount of DCG (Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418). Of all single lists of k
items the first k by it have the largest mean discounted gain. It follows the preference as they do, needs
no second pass through the model, and is the same whatever the order of the rows.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.replace_where import checked_date
from multitron_core.preference.keys import pi_key

if TYPE_CHECKING:
    from multitron_core.lake.lake import Lake

EVERYBODY = "all"


def fallback_list(
    lake: Lake, run_date: date | str, pi: str, k: int, *, delta_version: int | None = None
) -> pl.DataFrame:
    """The k items of a night's lists with the largest mean discounted gain.

    Args:
        lake: the lake with the night's `recommendations`.
        run_date, pi: the partition to take the lists from, published or not.
        k: items of the list.
        delta_version: the version to read it at, None for the newest.

    Returns:
        k rows `audience` ("all"), `rank` Int16, `item_id`, `score` Float32 in (0, 1]; items of equal score by id.

    Raises:
        InputError: the partition is not there, or its lists have fewer than k items together.
    """
    run_date, pi = checked_date(run_date), pi_key(pi)
    opened = lake.open("recommendations", delta_version)
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
            "the night's lists have too few items for a list",
            where=f"{opened.table_uri}, run_date {run_date}, pi {pi}",
            found=len(items),
            hint=f"score the sessions of that night first, with at least {k} items a list",
        )
    sessions = int(places.filter(rank=1)["len"].sum())
    # bincount adds in the order of the rows, so that repeating it gives the same bits.
    gains = places["len"].to_numpy() / np.log2(places["rank"].to_numpy().astype(np.float64) + 1.0)
    scores = np.bincount(places["item_id"].rle_id().to_numpy(), weights=gains) / sessions
    return (
        pl.DataFrame({"audience": EVERYBODY, "item_id": items, "score": scores.astype(np.float32)})
        .sort("score", "item_id", descending=[True, False])
        .head(k)
        .select("audience", pl.int_range(1, pl.len() + 1, dtype=pl.Int16).alias("rank"), "item_id", "score")
    )
