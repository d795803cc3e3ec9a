"""Score sessions into recommendation rows, as a stream.

Sessions are taken in the order of their ids, a window at a time. Within a window equal sequences are scored once, and
sequences of one length share a request, so nothing is padded. Several requests are in flight; a window's rows come out
in order while the next window is being scored. The rows are the same whatever the order of the sessions given.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from multitron_core.errors import InputError
from multitron_core.preference.keys import preference
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving.interface import LiveModel, Scorer, ScoringRequest, check_k

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoringProgress:
    """How far scoring is."""

    sessions: int  # scored so far
    total: int
    requests: int  # answered so far
    sequences: int  # scored so far, without repeats
    seconds: float

    @property
    def rate(self) -> float:
        """Sessions a second since the start."""
        return self.sessions / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """At the rate so far."""
        return (self.total - self.sessions) / self.rate if self.rate > 0 else float("inf")


def log_progress(progress: ScoringProgress) -> None:
    """Write a line to the log: what `score_sessions` does unless told otherwise."""
    logger.info(
        "scored %d of %d sessions (%.0f a second, %.0f s left)",
        progress.sessions,
        progress.total,
        progress.rate,
        progress.seconds_left,
    )


def score_sessions(
    sessions: EncodedSessions,
    pi: str | float,
    k: int = 20,
    *,
    scorer: Scorer,
    vocabulary: Vocabulary,
    model: LiveModel | None = None,
    assortment: pl.Series | None = None,
    exclude_clicked: bool = False,
    exclude_ordered: bool = False,
    batch_sessions: int = 256,
    in_flight: int = 4,
    window_sessions: int = 65_536,
    progress: Callable[[ScoringProgress], None] = log_progress,
) -> Iterator[pl.DataFrame]:
    """The k best items of every session at one preference.

    Args:
        sessions: encoded with `vocabulary`; ids are distinct and every session has a click.
        pi: the weight on orders, as a key or a number; for a model of more objectives see `preference.preference`.
        k: items a list.
        scorer: a `TritonScorer` or an `InProcessScorer`.
        vocabulary: gives the items their ids back.
        model: the version to ask, from `scorer.live_model()`; None asks which is live. Every request names it, so that
            a deployment in the middle changes no row.
        assortment: item ids that lists may hold; ids that the vocabulary lacks are passed over (the model cannot
            score them). None allows all items.
        exclude_clicked: keep the items that a session clicked out of its list.
        exclude_ordered: keep the items that a session ordered out of its list.
        batch_sessions: sequences a request at most.
        in_flight: requests that wait for an answer at a time.
        window_sessions: sessions that are grouped together; bounds memory.
        progress: called after each window.

    Yields:
        Frames `session_id` String, `rank` Int16 (1 to k), `item_id` (the vocabulary's type), `score` Float32, a window
        each; rows rise by session_id, then rank, within a frame and from frame to frame.

    Raises:
        InputError: another vocabulary than the deployed model's; k, pi or the sessions cannot be scored; too few items
            are left for k. Raised at the call, before the first frame, where it can be known then.
        UnavailableError: the scorer does not answer.
    """
    live = model or scorer.live_model()
    weights = np.array(preference(pi, live.objectives), np.float32)
    _check(sessions, k, live, vocabulary)
    allowed = None if assortment is None else _assortment(assortment, vocabulary, k)
    order = sessions.session_ids.arg_sort().to_numpy()
    # A generator of its own, so that what is wrong is said at the call and not at the first frame.
    return _stream(
        sessions,
        order,
        _Plan(weights, k, live, allowed, exclude_clicked, exclude_ordered, batch_sessions),
        scorer,
        vocabulary,
        in_flight,
        window_sessions,
        progress,
    )


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is the same for all windows."""

    pi: np.ndarray
    k: int
    live: LiveModel
    assortment: np.ndarray | None
    exclude_clicked: bool
    exclude_ordered: bool
    batch_sessions: int


@dataclass(frozen=True, eq=False)
class _Batch:
    """Distinct sequences of one length, and the sessions of the window that have them."""

    request: ScoringRequest
    rows: np.ndarray  # int64 [n]: places in the window
    which: np.ndarray  # int64 [n]: the row of the request that a place has


def _stream(
    sessions: EncodedSessions,
    order: np.ndarray,
    plan: _Plan,
    scorer: Scorer,
    vocabulary: Vocabulary,
    in_flight: int,
    window_sessions: int,
    progress: Callable[[ScoringProgress], None],
) -> Iterator[pl.DataFrame]:
    begun = time.monotonic()
    done = ScoringProgress(0, len(order), 0, 0, 0.0)
    windows = [order[start : start + window_sessions] for start in range(0, len(order), window_sessions)]
    waiting: deque[tuple[np.ndarray, list[tuple[_Batch, Future[tuple[np.ndarray, np.ndarray]]]]]] = deque()
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="scoring") as pool:
        try:
            for place in range(len(windows) + 1):
                if place < len(windows):  # the next window is under way before the last one is awaited
                    batches = _batches(sessions, windows[place], plan)
                    waiting.append(
                        (
                            windows[place],
                            [(batch, pool.submit(scorer.top_k, batch.request, plan.live)) for batch in batches],
                        )
                    )
                if len(waiting) > 1 or place == len(windows):
                    if not waiting:
                        break
                    window, answers = waiting.popleft()
                    frame = _frame(sessions, window, answers, plan, vocabulary)
                    done = replace(
                        done,
                        sessions=done.sessions + len(window),
                        requests=done.requests + len(answers),
                        sequences=done.sequences + sum(len(batch.request.items) for batch, _ in answers),
                        seconds=time.monotonic() - begun,
                    )
                    progress(done)
                    yield frame
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # the reader may have stopped early


def _batches(sessions: EncodedSessions, window: np.ndarray, plan: _Plan) -> list[_Batch]:
    """The requests of a window: sequences of one length, each sequence once, in a fixed order."""
    offsets = np.asarray(sessions.offsets)
    begin, end = offsets[window], offsets[window + 1]
    used = np.minimum(end - begin, plan.live.max_length)
    excluded = _excluded(sessions, begin, end, plan)
    width = np.zeros(len(window), np.int64) if excluded is None else (excluded > 0).sum(axis=1)
    batches = []
    for length in np.unique(used):
        rows = np.flatnonzero(used == length)
        clicks = np.asarray(sessions.items)[end[rows, None] - length + np.arange(length)].astype(np.int64)
        keys = clicks if excluded is None else np.hstack([clicks, excluded[rows]])
        distinct, which = _distinct(keys)
        for start in range(0, len(distinct), plan.batch_sessions):
            part = distinct[start : start + plan.batch_sessions]
            mine = np.flatnonzero((which >= start) & (which < start + len(part)))
            barred = None
            if excluded is not None:
                widest = max(1, int(width[rows[mine]].max()))
                barred = part[:, length : length + widest]
            batches.append(
                _Batch(
                    ScoringRequest(
                        items=part[:, :length],
                        lengths=np.full(len(part), length),
                        pi=np.tile(plan.pi, (len(part), 1)),
                        k=plan.k,
                        excluded=barred,
                        assortment=plan.assortment,
                    ),
                    rows[mine],
                    which[mine] - start,
                )
            )
    return batches


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of an int64 matrix, and for each row the place of its like; in a fixed order."""
    rows = np.ascontiguousarray(rows)
    as_one = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, which = np.unique(as_one, return_index=True, return_inverse=True)
    return rows[first], which


def _excluded(sessions: EncodedSessions, begin: np.ndarray, end: np.ndarray, plan: _Plan) -> np.ndarray | None:
    """Distinct items that each session's list must not hold, int64 [sessions, widest], 0 behind the last."""
    if not (plan.exclude_clicked or plan.exclude_ordered):
        return None
    lengths = end - begin
    row = np.repeat(np.arange(len(begin)), lengths)
    click = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(begin, lengths)
    if not plan.exclude_clicked:  # every ordered item of an encoded session was clicked before
        chosen = np.asarray(sessions.ordered)[click]
        row, click = row[chosen], click[chosen]
    pairs = np.unique(np.stack([row, np.asarray(sessions.items)[click].astype(np.int64)], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(begin))
    column = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    barred = np.zeros((len(begin), max(1, int(counts.max(initial=0)))), np.int64)
    barred[pairs[:, 0], column] = pairs[:, 1]
    return barred


def _frame(
    sessions: EncodedSessions,
    window: np.ndarray,
    answers: list[tuple[_Batch, Future[tuple[np.ndarray, np.ndarray]]]],
    plan: _Plan,
    vocabulary: Vocabulary,
) -> pl.DataFrame:
    index = np.empty((len(window), plan.k), np.int32)
    scores = np.empty((len(window), plan.k), np.float32)
    for batch, answer in answers:
        found_index, found_scores = answer.result()
        index[batch.rows], scores[batch.rows] = found_index[batch.which], found_scores[batch.which]
    whole = np.isfinite(scores).all(axis=1)
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        barred = bool(np.isneginf(scores[row]).any())
        raise InputError(
            "a list cannot be filled" if barred else "a score is not a finite number",
            where=f"session {sessions.session_ids[int(window[row])]}",
            found=scores[row].tolist(),
            hint="allow more items in the assortment or ask for a smaller k" if barred else "train the model again",
        )
    return pl.DataFrame(
        {
            "session_id": sessions.session_ids.gather(np.repeat(window, plan.k)),
            "rank": np.tile(np.arange(1, plan.k + 1, dtype=np.int16), len(window)),
            "item_id": vocabulary.decode(index.ravel()),
            "score": scores.ravel(),
        }
    )


def _check(sessions: EncodedSessions, k: int, live: LiveModel, vocabulary: Vocabulary) -> None:
    for name, found in (("sessions", sessions.vocabulary_hash), ("vocabulary", vocabulary.hash)):
        if found != live.vocabulary_hash:
            raise InputError(
                f"the {name} to score and the deployed model have different vocabularies",
                where=f"{live.model_name} version {live.version} (model {live.model_version})",
                found=found,
                hint=f"expected {live.vocabulary_hash}: encode the sessions with the model's vocabulary, or deploy the "
                "model of this vocabulary",
            )
    check_k(k, live.items)
    empty = int((sessions.lengths < 1).sum())
    if empty:
        raise InputError("sessions without a click cannot be scored", found=empty, hint="leave them out")
    if sessions.session_ids.n_unique() != len(sessions):
        raise InputError(
            "session ids repeat",
            found=str(sessions.session_ids.filter(sessions.session_ids.is_duplicated())[0]),
            hint="give every session an id of its own",
        )


def _assortment(assortment: pl.Series, vocabulary: Vocabulary, k: int) -> np.ndarray:
    indices = vocabulary.encode(assortment.drop_nulls()).to_numpy()
    allowed = np.zeros(len(vocabulary), bool)
    allowed[indices[indices > 0] - 1] = True
    unknown = int((indices == 0).sum())
    if unknown:
        logger.warning("%d of %d items of the assortment are unknown to the model", unknown, len(indices))
    if int(allowed.sum()) < k:
        raise InputError(
            "the assortment is smaller than a list",
            where=f"k = {k}",
            found=f"{int(allowed.sum())} items that the model knows",
            hint="allow more items or ask for a smaller k",
        )
    return allowed
