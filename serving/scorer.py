"""Score sessions into recommendation rows, as a stream.

Sessions are processed in the order of their ids, in windows. Within a window equal sequences are scored once, and
sequences of equal length share a request, so there is no padding. Several requests are in flight. The rows of a window
are yielded in order while the next window is being scored. The rows do not depend on the order of the given sessions.
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
    """Progress of `score_sessions` after a window."""

    sessions: int  # sessions scored so far
    total: int  # sessions to score
    requests: int  # requests answered so far
    sequences: int  # sequences scored so far; equal ones of a window count once
    seconds: float  # since the start

    @property
    def rate(self) -> float:
        """Sessions per second since the start."""
        return self.sessions / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Estimated seconds until the end, at the rate so far."""
        return (self.total - self.sessions) / self.rate if self.rate > 0 else float("inf")


def log_progress(progress: ScoringProgress) -> None:
    """Log one line of progress; the default of `score_sessions`."""
    logger.info(
        "scored %d of %d sessions (%.0f per second, %.0f s left)",
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
        sessions: encoded with `vocabulary`; ids are distinct and every session has at least one click.
        pi: the weight on orders, as a key or a number; for models with more objectives see
            `multitron_core.preference.keys.preference`.
        k: items per list.
        scorer: a `TritonScorer` or an `InProcessScorer`.
        vocabulary: the vocabulary of the deployed model; decodes item indices to ids.
        model: the version to use, from `scorer.live_model()`; None uses the live one. Every request names the version,
            so a deployment during scoring changes no row.
        assortment: item ids that lists may contain. Ids outside the vocabulary are ignored with a warning, because the
            model cannot score them. None allows all items.
        exclude_clicked: leave items that the session clicked out of its list.
        exclude_ordered: leave items that the session ordered out of its list.
        batch_sessions: largest number of sequences per request.
        in_flight: largest number of requests in flight.
        window_sessions: sessions per window; bounds memory.
        progress: called after each window.

    Yields:
        One frame per window: `session_id` (the type of the sessions' ids), `rank` Int16 (1 to k), `item_id` (the
        vocabulary's type) and `score` Float32, sorted by session_id, then rank, within and across frames.

    Raises:
        InputError: the sessions or `vocabulary` have another vocabulary than the model; k, pi or the sessions cannot
            be scored; fewer than k items remain for a list. Where possible it is raised at the call, before the first
            frame.
        UnavailableError: the scorer does not answer.
    """
    live = model or scorer.live_model()
    weights = np.array(preference(pi, live.objectives), np.float32)
    _check(sessions, k, live, vocabulary)
    allowed = None if assortment is None else _assortment(assortment, vocabulary, k)
    order = sessions.session_ids.arg_sort().to_numpy()
    # The generator is a separate function, so that the checks above raise at the call and not at the first frame.
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
    """The arguments of `score_sessions` that are equal for all windows."""

    pi: np.ndarray
    k: int
    live: LiveModel
    assortment: np.ndarray | None
    exclude_clicked: bool
    exclude_ordered: bool
    batch_sessions: int


@dataclass(frozen=True, eq=False)
class _Batch:
    """A request for distinct sequences of one length, and the n sessions of the window that have them."""

    request: ScoringRequest
    rows: np.ndarray  # int64 [n]: positions of the sessions in the window
    which: np.ndarray  # int64 [n]: for each of them the row of the request


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
    """The frames of `score_sessions`; `order` is int64 [sessions], positions sorted by session id."""
    started = time.monotonic()
    done = ScoringProgress(0, len(order), 0, 0, 0.0)
    windows = [order[start : start + window_sessions] for start in range(0, len(order), window_sessions)]
    waiting: deque[tuple[np.ndarray, list[tuple[_Batch, Future[tuple[np.ndarray, np.ndarray]]]]]] = deque()
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="scoring") as pool:
        try:
            for number in range(len(windows) + 1):
                if number < len(windows):  # submit the next window before waiting for the previous one
                    batches = _batches(sessions, windows[number], plan)
                    waiting.append(
                        (
                            windows[number],
                            [(batch, pool.submit(scorer.top_k, batch.request, plan.live)) for batch in batches],
                        )
                    )
                if len(waiting) > 1 or number == len(windows):
                    if not waiting:
                        break
                    window, answers = waiting.popleft()
                    frame = _frame(sessions, window, answers, plan, vocabulary)
                    done = replace(
                        done,
                        sessions=done.sessions + len(window),
                        requests=done.requests + len(answers),
                        sequences=done.sequences + sum(len(batch.request.items) for batch, _ in answers),
                        seconds=time.monotonic() - started,
                    )
                    progress(done)
                    yield frame
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # the consumer may close the generator early


def _batches(sessions: EncodedSessions, window: np.ndarray, plan: _Plan) -> list[_Batch]:
    """The requests of a window, each with distinct sequences of one length, in a fixed order."""
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
            members = np.flatnonzero((which >= start) & (which < start + len(part)))
            part_excluded = None
            if excluded is not None:
                widest = max(1, int(width[rows[members]].max()))
                part_excluded = part[:, length : length + widest]
            batches.append(
                _Batch(
                    ScoringRequest(
                        items=part[:, :length],
                        lengths=np.full(len(part), length),
                        pi=np.tile(plan.pi, (len(part), 1)),
                        k=plan.k,
                        excluded=part_excluded,
                        assortment=plan.assortment,
                    ),
                    rows[members],
                    which[members] - start,
                )
            )
    return batches


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of an int64 matrix in a fixed order, and for each row its position among them."""
    rows = np.ascontiguousarray(rows)
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, which = np.unique(as_bytes, return_index=True, return_inverse=True)
    return rows[first], which


def _excluded(sessions: EncodedSessions, begin: np.ndarray, end: np.ndarray, plan: _Plan) -> np.ndarray | None:
    """The distinct items that each session's list must not contain, int64 [sessions, widest], padded with 0.

    None where the plan excludes nothing.
    """
    if not (plan.exclude_clicked or plan.exclude_ordered):
        return None
    lengths = end - begin
    row = np.repeat(np.arange(len(begin)), lengths)
    click = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(begin, lengths)
    if not plan.exclude_clicked:  # ordered items are clicked items, so exclude_clicked covers them
        chosen = np.asarray(sessions.ordered)[click]
        row, click = row[chosen], click[chosen]
    pairs = np.unique(np.stack([row, np.asarray(sessions.items)[click].astype(np.int64)], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(begin))
    column = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    excluded = np.zeros((len(begin), max(1, int(counts.max(initial=0)))), np.int64)
    excluded[pairs[:, 0], column] = pairs[:, 1]
    return excluded


def _frame(
    sessions: EncodedSessions,
    window: np.ndarray,
    answers: list[tuple[_Batch, Future[tuple[np.ndarray, np.ndarray]]]],
    plan: _Plan,
    vocabulary: Vocabulary,
) -> pl.DataFrame:
    """The rows of a window, after its requests have been answered."""
    index = np.empty((len(window), plan.k), np.int32)
    scores = np.empty((len(window), plan.k), np.float32)
    for batch, answer in answers:
        found_index, found_scores = answer.result()
        index[batch.rows], scores[batch.rows] = found_index[batch.which], found_scores[batch.which]
    valid = np.isfinite(scores).all(axis=1)
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        too_short = bool(np.isneginf(scores[row]).any())
        raise InputError(
            "a list cannot be filled" if too_short else "a score is not a finite number",
            where=f"session {sessions.session_ids[int(window[row])]}",
            found=scores[row].tolist(),
            hint="allow more items in the assortment or use a smaller k" if too_short else "train the model again",
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
    """Raise InputError for sessions, a vocabulary or a k that the model cannot score."""
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
            hint="give every session a distinct id",
        )


def _assortment(assortment: pl.Series, vocabulary: Vocabulary, k: int) -> np.ndarray:
    """An assortment of item ids as bool [items]."""
    indices = vocabulary.encode(assortment.drop_nulls()).to_numpy()
    allowed = np.zeros(len(vocabulary), bool)
    allowed[indices[indices > 0] - 1] = True
    unknown = int((indices == 0).sum())
    if unknown:
        logger.warning("%d of %d items of the assortment are not in the model's vocabulary", unknown, len(indices))
    if int(allowed.sum()) < k:
        raise InputError(
            "the assortment is smaller than a list",
            where=f"k = {k}",
            found=f"{int(allowed.sum())} items of the model's vocabulary",
            hint="allow more items or use a smaller k",
        )
    return allowed
