"""What to show beside an item: the item is scored as a session of one click."""

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
    """A session for every item: one click on it. The session's id is the item's, of the item's own type."""
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
    """The k best items beside every item of the vocabulary, itself left out.

    Args:
        pi, k, scorer, vocabulary: as in `score_sessions`.
        options: of `score_sessions`: `assortment`, `batch_sessions`, `in_flight`, `window_sessions`, `progress`.

    Yields:
        Frames `for_item_id`, `rank` Int16, `item_id`, `score` Float32; rows rise by for_item_id, then rank.

    Raises:
        InputError, UnavailableError: as `score_sessions`.
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
