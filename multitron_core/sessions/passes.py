"""Session preparation in passes over the shards of a log; facts about the whole log are collected between passes.

1. group clicks into sessions, drop short sessions, count items
2. drop rare items, drop short sessions, collect the starts of sessions
3. split; find the first appearance of each item in train, which gives the order of the vocabulary
4. drop test items that are not in train, label clicks, encode
5. sort the sessions by their first event
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.events.formats.format import PreparationRules, SplitRule
from multitron_core.sessions.clicks import SessionClicks, group_clicks
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.encoded_shards import EncodedShard, by_first_event, encode_shard, merge_shards
from multitron_core.sessions.event_shards import LINE_BITS, EventShards
from multitron_core.sessions.vocabulary import Vocabulary

Result = TypeVar("Result")

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, eq=False)
class Split:
    """Train and test sessions, and the counts of events.

    Args:
        train, test: Encoded sessions, sorted by the time of their first event.
        orders: Number of orders in the sessions of (train, test).
        carts: Number of carts in the sessions of (train, test); None if carts are not an objective.
        vocabulary: Items of train.
        dropped: Reason -> number of dropped events.
        time: Split time; None for the published split.
    """

    train: EncodedSessions
    test: EncodedSessions
    orders: tuple[int, int]
    carts: tuple[int, int] | None
    vocabulary: Vocabulary
    dropped: dict[str, int]
    time: datetime | None


def split_sessions(shards: EventShards, rules: PreparationRules, *, carts: bool = False) -> Split:
    """Filter, split, label and encode the sessions of a log.

    Args:
        shards: The log.
        rules: Rules of preparation.
        carts: Whether to label clicks with carts as well as orders.

    Raises:
        InputError: Train or test has no session.
    """
    store = ShardStore(len(shards), shards.folder)
    dropped: Counter[str] = Counter({} if carts else {"carts: not used": shards.counts["cart"]})
    label_types = ("order", "cart") if carts else ("order",)
    item_ids = _frequent_items(shards, store, rules, label_types, dropped)
    starts = _drop_rare_items(store, item_ids, rules, dropped)
    split = _SplitAt(rules.split, _split_time(starts, rules.split), [("test" in name) for name in shards.file_names()])
    codes = _first_appearances(store, split, len(item_ids))
    vocabulary = Vocabulary(item_ids.gather(codes))
    index = np.zeros(len(item_ids), dtype=np.int32)  # code -> index; 0 if the item is not in train
    index[codes] = np.arange(1, len(codes) + 1, dtype=np.int32)
    parts: tuple[list[EncodedShard], list[EncodedShard]] = ([], [])

    def encode(number: int, dropped: Counter[str]) -> tuple[EncodedShard, EncodedShard]:
        return _encode(*store.get(number), split, index, vocabulary, rules, label_types, dropped)

    for pair in _each_shard(len(store), encode, dropped):
        for part, encoded in zip(parts, pair, strict=True):
            part.append(encoded)
    train_orders, test_orders = (sum(encoded.orders for encoded in part) for part in parts)
    train_carts, test_carts = (sum(encoded.carts for encoded in part) for part in parts)
    train, test = (merge_shards(part, by_first_event, vocabulary.hash) for part in parts)
    for name, sessions in (("train", train), ("test", test)):
        if not len(sessions):
            raise _empty(name, split, starts)
    return Split(
        train,
        test,
        (train_orders, test_orders),
        (train_carts, test_carts) if carts else None,
        vocabulary,
        {reason: count for reason, count in dropped.items() if count},
        split.at,
    )


@dataclass(frozen=True)
class _SplitAt:
    """A split rule applied to one log.

    Args:
        rule: The rule.
        microseconds: Split time, since 1970 in UTC; None for the published split.
        test_files: Whether each file is a test file, by the number of the file in a `place`.
    """

    rule: SplitRule
    microseconds: int | None
    test_files: list[bool]

    @property
    def at(self) -> datetime | None:
        """Split time; None for the published split."""
        return None if self.microseconds is None else _time(self.microseconds)

    def is_test(self, clicks: SessionClicks) -> np.ndarray:
        """Whether each session belongs to test, bool [sessions]."""
        if self.microseconds is None:
            return np.array(self.test_files, dtype=bool)[clicks.first_place >> LINE_BITS]
        return (clicks.first_ts() if self.rule.by == "first" else clicks.last_ts()) >= self.microseconds


class ShardStore:
    """Store of each shard's sessions and label events (orders, carts) between passes, in memory or in files.

    Args:
        shards: Number of shards.
        folder: Folder for files; None keeps all shards in memory.
    """

    def __init__(self, shards: int, folder: Path | None) -> None:
        self._folder = folder
        self._in_memory: list[tuple[SessionClicks, pl.DataFrame] | None] = [None] * shards

    def __len__(self) -> int:
        return len(self._in_memory)

    def put(self, number: int, clicks: SessionClicks, label_events: pl.DataFrame) -> None:
        """Store a shard, replacing its earlier state."""
        if self._folder is None:
            self._in_memory[number] = (clicks, label_events)
        else:
            clicks.save(self._folder / f"clicks-{number}")
            label_events.write_ipc(self._folder / f"labels-{number}.arrow")

    def get(self, number: int) -> tuple[SessionClicks, pl.DataFrame]:
        """The sessions and label events of a shard that `put` stored."""
        stored = self._in_memory[number]
        if stored is not None:
            return stored
        assert self._folder is not None  # a shard is in memory or in files
        label_events = pl.read_ipc(self._folder / f"labels-{number}.arrow")
        return SessionClicks.load(self._folder / f"clicks-{number}"), label_events


def _each_shard(shards: int, process: Callable[[int, Counter[str]], Result], dropped: Counter[str]) -> Iterator[Result]:
    """Call `process(number of the shard, counter of its dropped events)` for every shard; results in order.

    Two shards are processed at once: polars and numpy release the interpreter lock most of the time, and a third
    thread would need more memory without saving much time.
    """

    def process_and_count(number: int) -> tuple[Result, Counter[str]]:
        shard_dropped: Counter[str] = Counter()
        return process(number, shard_dropped), shard_dropped

    if shards == 1:  # on this thread, because the allocator keeps memory for every thread that has used some
        result, shard_dropped = process_and_count(0)
        dropped.update(shard_dropped)
        yield result
        return
    with ThreadPoolExecutor(max_workers=2) as pool:
        for result, shard_dropped in pool.map(process_and_count, range(shards)):
            dropped.update(shard_dropped)
            yield result


def _frequent_items(
    shards: EventShards, store: ShardStore, rules: PreparationRules, label_types: tuple[str, ...], dropped: Counter[str]
) -> pl.Series:
    """Pass 1. Ids of the frequent items; the position of an item in them is its code until pass 3."""

    def group_shard(number: int, dropped: Counter[str]) -> pl.DataFrame:
        events = shards.load(number)
        label_events = events.filter(pl.col("event_type").is_in(label_types)).drop("place")
        only_clicks = events.filter(event_type="click").drop("event_type")
        del events  # free memory before the next copy
        clicks = _drop_short(group_clicks(only_clicks), rules, "", dropped)
        del only_clicks
        store.put(number, clicks, label_events)
        return clicks.items.alias("item_id").to_frame().group_by("item_id").agg(clicks=pl.len())

    counts: pl.DataFrame | None = None
    for found in _each_shard(len(shards), group_shard, dropped):
        # Merging after every shard keeps the frame at the size of the catalogue.
        merged = found if counts is None else pl.concat([counts, found])
        counts = merged.group_by("item_id").agg(pl.col("clicks").sum())
    assert counts is not None  # a log with clicks has a shard
    return counts.filter(pl.col("clicks") >= rules.min_item_clicks)["item_id"]


def _drop_rare_items(
    store: ShardStore, item_ids: pl.Series, rules: PreparationRules, dropped: Counter[str]
) -> np.ndarray:
    """Pass 2. Earliest and latest session start, int64 [2]; after this pass, items of clicks are codes."""
    codes = item_ids.alias("item_id").to_frame().with_row_index("code")

    def filter_shard(number: int, dropped: Counter[str]) -> tuple[int, int] | None:
        clicks, label_events = store.get(number)
        found = clicks.items.alias("item_id").to_frame().join(codes, on="item_id", how="left", maintain_order="left")
        kept = found["code"].is_not_null()
        dropped[f"clicks: item with fewer than {rules.min_item_clicks} clicks"] += int((~kept).sum())
        clicks = clicks.with_items(found["code"].fill_null(0))
        if not kept.all():
            clicks = clicks.with_clicks(kept.to_numpy())
        clicks = _drop_short(clicks, rules, " after rare items", dropped)
        store.put(number, clicks, label_events)
        return (int(clicks.first_ts().min()), int(clicks.first_ts().max())) if len(clicks) else None

    starts = [found for found in _each_shard(len(store), filter_shard, dropped) if found is not None]
    if not starts:
        raise InputError(
            "no session is left",
            found=dict(dropped),
            hint="use more events, or smaller min_session_clicks and min_item_clicks",
        )
    return np.array([min(first for first, _ in starts), max(last for _, last in starts)])


def _split_time(starts: np.ndarray, rule: SplitRule) -> int | None:
    """Split time in microseconds; None for the published split."""
    if rule.by == "file":
        return None
    last = int(starts[1])
    return (last - last % _DAY if rule.anchor == "midnight" else last) - round(rule.days * _DAY)


def _first_appearances(store: ShardStore, split: _SplitAt, items: int) -> np.ndarray:
    """Pass 3. Item codes in the order of their first appearance in train.

    Sessions are read in the order of their first line, and the clicks of a session in time order.
    """

    def first_clicks(number: int, dropped: Counter[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes in this shard, and place and step of the first click on each."""
        clicks, _ = store.get(number)
        clicks = clicks.with_sessions(~split.is_test(clicks))
        if not np.all(np.diff(clicks.first_place) > 0):
            clicks = clicks.take(np.argsort(clicks.first_place, kind="stable"))
        codes = clicks.items.to_numpy()
        first = np.full(items, -1)
        first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last write wins: the first click of each code
        seen = np.flatnonzero(first >= 0)
        session = np.searchsorted(clicks.offsets, first[seen], side="right") - 1
        return seen, clicks.first_place[session], first[seen] - clicks.offsets[session]

    never = np.iinfo(np.int64).max
    place, step = np.full(items, never), np.full(items, never)
    for seen, new_place, new_step in _each_shard(len(store), first_clicks, Counter()):
        earlier = (new_place < place[seen]) | ((new_place == place[seen]) & (new_step < step[seen]))
        place[seen[earlier]], step[seen[earlier]] = new_place[earlier], new_step[earlier]
    in_train = np.flatnonzero(place != never)
    return in_train[np.lexsort((step[in_train], place[in_train]))]


def _encode(
    clicks: SessionClicks,
    label_events: pl.DataFrame,
    split: _SplitAt,
    index: np.ndarray,
    vocabulary: Vocabulary,
    rules: PreparationRules,
    label_types: tuple[str, ...],
    dropped: Counter[str],
) -> tuple[EncodedShard, EncodedShard]:
    """Pass 4. Encoded train and test sessions of a shard."""
    is_test = split.is_test(clicks)
    clicks = clicks.with_items(pl.Series(index[clicks.items.to_numpy()]))
    train, test = clicks.with_sessions(~is_test), clicks.with_sessions(is_test)
    known = (test.items > 0).to_numpy()
    dropped["clicks: item that train does not have"] += int((~known).sum())
    test = _drop_short(test.with_clicks(known), rules, " after items that train does not have", dropped)
    labels = []
    for event_type in label_types:
        events = label_events.filter(event_type=event_type)
        known_events = events.join(vocabulary.to_frame(), on="item_id", how="inner", maintain_order="left")
        dropped[f"{event_type}s: item that train does not have"] += len(events) - len(known_events)
        labels.append(known_events)
    encoded = encode_shard(train, *labels), encode_shard(test, *labels)
    for event_type, events in zip(label_types, labels, strict=True):
        used = sum(part.orders if event_type == "order" else part.carts for part in encoded)
        dropped[f"{event_type}s: session that was dropped"] += len(events) - used
    return encoded


def _drop_short(clicks: SessionClicks, rules: PreparationRules, when: str, dropped: Counter[str]) -> SessionClicks:
    """Drop short sessions; `when` completes the reason that counts their clicks."""
    long = clicks.lengths >= rules.min_session_clicks
    dropped[f"clicks: session with fewer than {rules.min_session_clicks} clicks{when}"] += int(
        clicks.lengths[~long].sum()
    )
    return clicks.with_sessions(long)


def _empty(name: str, split: _SplitAt, starts: np.ndarray) -> InputError:
    """Error for a split without train or without test sessions."""
    first, last = (_time(int(start)).isoformat(timespec="seconds") for start in starts)
    if split.at is None:
        return InputError(
            f"the split leaves no {name} session",
            where="the published split: files whose name contains 'test' are the test set",
            hint="add the missing file, or split by time with split_days",
        )
    days = (starts[1] - starts[0]) / _DAY
    return InputError(
        f"the split leaves no {name} session",
        where=f"split at {split.at.isoformat(timespec='seconds')} ({split.rule.days:g} days), sessions by their "
        f"{split.rule.by} click",
        found=f"sessions that start from {first} to {last} ({days:.1f} days)",
        hint=f"choose a {'smaller' if name == 'train' else 'larger'} split_days, or use more days of events",
    )


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
