"""Preparation of an event log for training and testing.

The operations and their order are those of the official MultiTRON code (paper, section 4.1), with times in UTC:

1. group clicks into sessions, in time order
2. drop short sessions, then rare items, then short sessions again
3. split sessions into train and test by time
4. drop test items that are not in train, and give items indices in the order of their first appearance
5. label clicks with later orders, and sort sessions by their first event
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.formats import PreparationRules, SplitRule, get_format
from multitron_core.events.read import EventLog, check_reject_share
from multitron_core.preference.objectives import check_objectives
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.event_shards import ROWS_IN_MEMORY, EventShards
from multitron_core.sessions.passes import split_sessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.atomic_folder import atomic_folder
from multitron_core.utils.event_types import EVENT_TYPES

__all__ = ["PreparedSessions", "format_statistics", "prepare_sessions"]


@dataclass(frozen=True, eq=False)
class PreparedSessions:
    """Sessions for training and testing.

    Args:
        train, test: Encoded sessions, sorted by the time of their first event.
        vocabulary: Items of train.
        statistics: `{"train": {"sessions", "clicks", "orders"}, "test": {...}, "items": n, "in": {"clicks", "orders",
            "carts"}, "dropped": {reason: n}, "rejected": {reason: n}, "split": time}`; train and test have "carts" too
            if carts label clicks. A reason begins with the kind of events that it counts, so that `in["clicks"]` =
            clicks of train and test + all counts in `dropped` whose reason begins with "clicks". The same holds for
            orders and carts.
    """

    train: EncodedSessions
    test: EncodedSessions
    vocabulary: Vocabulary
    statistics: dict[str, Any]

    def save(self, folder: Path | str) -> None:
        """Write into `folder` (`train/`, `test/`, `vocabulary.parquet`, `statistics.json`), replacing what is there.

        Readers find the old or the new sessions, never a part of them; see `atomic_folder`.
        """
        with atomic_folder(folder) as new:
            self.train.save(new / "train")
            self.test.save(new / "test")
            self.vocabulary.save(new / "vocabulary.parquet")
            (new / "statistics.json").write_text(json.dumps(self.statistics, indent=2))

    @classmethod
    def load(cls, folder: Path | str) -> PreparedSessions:
        """Open a folder that `save` wrote; clicks are memory-mapped.

        Raises:
            InputError: A file is missing or damaged.
        """
        folder = Path(folder).resolve()  # all files from one version of a folder that may be replaced meanwhile
        try:
            statistics = json.loads((folder / "statistics.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                "prepared sessions cannot be read", where=folder, found=str(error), hint="prepare the sessions again"
            ) from error
        return cls(
            EncodedSessions.load(folder / "train"),
            EncodedSessions.load(folder / "test"),
            Vocabulary.load(folder / "vocabulary.parquet"),
            statistics,
        )


def prepare_sessions(
    events: EventLog | pl.LazyFrame | pl.DataFrame,
    format: str = "table",
    *,
    split_days: float | None = None,
    min_session_clicks: int | None = None,
    min_item_clicks: int | None = None,
    session_gap: timedelta | None = None,
    objectives: Sequence[str] = ("click", "order"),
    max_reject_share: float = 0.01,
    rows_in_memory: int = ROWS_IN_MEMORY,
) -> PreparedSessions:
    """Prepare an event log for training and testing.

    Args:
        events: Result of `read_events`, or a frame with the log's columns. `file` and `line` decide the order of items
            in the vocabulary; without these columns, the order of rows does.
        format: Format whose rules apply. diginetica splits at midnight of the last session start minus 7 days, by first
            click. yoochoose splits at the last session start minus 1 day, by last click. Both keep items with at least
            5 clicks. otto uses the published split (files whose name contains "test") and keeps every item. table has
            the rules of diginetica with 1 day.
        split_days: Days of the test set, in place of the format's; otto then splits like table.
        min_session_clicks, min_item_clicks: Minimum numbers of clicks, in place of the format's.
        session_gap: Longest pause within a session, if `session_id` is the id of a user whose events are to be split
            into sessions.
        objectives: Objectives of the models to train; with "cart" among them, clicks have labels of carts too.
        max_reject_share: Largest accepted share of rejected lines.
        rows_in_memory: Maximum number of events in memory; a larger log is processed through temporary files.

    Returns:
        Train, test, vocabulary and statistics.

    Raises:
        InputError: There are too many rejects or no clicks, an objective or the format is unknown, the log has missing
            columns, nulls or unknown event types, or the split leaves train or test empty.
    """
    check_objectives(objectives)
    rules = _rules(get_format(format).rules, split_days, min_session_clicks, min_item_clicks)
    with EventShards(rows_in_memory=rows_in_memory, session_gap=session_gap) as shards:
        shards.read(events)
        accepted = sum(shards.counts.values())
        check_reject_share(
            accepted, shards.rejected, shards.first_rejects, max_share=max_reject_share, where=f"{format} events"
        )
        if not shards.counts["click"]:
            found = {event_type: shards.counts[event_type] for event_type in EVENT_TYPES}
            raise InputError(
                "there are no clicks", where=f"{format} events", found=found, hint="check the path and the event types"
            )
        split = split_sessions(shards, rules, carts="cart" in objectives)
        parts = {"train": _counts(split.train, split.orders[0]), "test": _counts(split.test, split.orders[1])}
        if split.carts is not None:
            parts["train"]["carts"], parts["test"]["carts"] = split.carts
        statistics = {
            **parts,
            "items": len(split.vocabulary),
            "in": {f"{event_type}s": shards.counts[event_type] for event_type in EVENT_TYPES},
            "dropped": split.dropped,
            "rejected": dict(shards.rejected),
            "split": None if split.time is None else split.time.isoformat(),
        }
        return PreparedSessions(split.train, split.test, split.vocabulary, statistics)


def _counts(sessions: EncodedSessions, orders: int) -> dict[str, int]:
    return {"sessions": len(sessions), "clicks": len(sessions.items), "orders": orders}


def _rules(
    rules: PreparationRules, split_days: float | None, min_session_clicks: int | None, min_item_clicks: int | None
) -> PreparationRules:
    split = rules.split
    if split_days is not None:
        split = SplitRule(days=split_days) if split.by == "file" else dataclasses.replace(split, days=split_days)
    return PreparationRules(
        split,
        rules.min_session_clicks if min_session_clicks is None else min_session_clicks,
        rules.min_item_clicks if min_item_clicks is None else min_item_clicks,
    )


def format_statistics(statistics: dict[str, Any]) -> str:
    """Format statistics as lines of text: the counts of the paper's Table 1, and the dropped and rejected events."""
    names = tuple(statistics["train"])
    rows: list[tuple[str, ...]] = [("", *names)]
    for part in ("train", "test"):
        rows.append((part, *(f"{statistics[part][name]:,}" for name in names)))
    lines = [f"{row[0]:<6}" + "".join(f"{value:>13}" for value in row[1:]) for row in rows]
    lines.append(f"items  {statistics['items']:>12,}")
    lines.append(f"split  {statistics['split'] or 'by file'}")
    for title, counts in (
        ("in", statistics["in"]),
        ("dropped", statistics["dropped"]),
        ("rejected", statistics["rejected"]),
    ):
        lines += [f"{title:<9}{count:>10,}  {name}" for name, count in counts.items()]
    return "\n".join(lines)
