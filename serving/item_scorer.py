"""Recommendations for an item: it is scored as a session with one click on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving.interface import Scorer
from serving.scorer import score_sessions


def one_click_sessions(vocabulary: Vocabulary) -> EncodedSessions:
    """One session per item, with one click on it.

    Args:
        vocabulary: the items, n of them.

    Returns:
        n sessions. The session id is the item's id and keeps its type.
    """
    count = len(vocabulary)
    return EncodedSessions(
        vocabulary.item_ids.alias("session_id"),
        np.arange(count + 1, dtype=np.int64),
        np.arange(1, count + 1, dtype=np.int32),
        np.zeros(count, bool),
        vocabulary.hash,
    )


def score_items(
    pi: str | float, k: int = 20, *, scorer: Scorer, vocabulary: Vocabulary, **options: Any
) -> Iterator[pl.DataFrame]:
    """The k best items for every item of the vocabulary; a list never contains the item it is for.

    Args:
        pi, k, scorer, vocabulary: as in `score_sessions`.
        options: passed to `score_sessions`: `model`, `assortment`, `batch_sessions`, `in_flight`, `window_sessions`,
            `progress`.

    Yields:
        Frames with `for_item_id` and `item_id` (the vocabulary's type), `rank` Int16 (1 to k) and `score` Float32,
        sorted by for_item_id, then rank.

    Raises:
        InputError, UnavailableError: as in `score_sessions`.
    """
    lists = score_sessions(
        one_click_sessions(vocabulary),
        pi,
        k,
        scorer=scorer,
        vocabulary=vocabulary,
        exclude_clicked=True,
        **options,
    )
    return (frame.rename({"session_id": "for_item_id"}) for frame in lists)
