"""Measurements for the report beyond the front: input ablation and example sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from multitron_core.metrics.ranking import ranking_metrics, score_blocks, target_ranks
from multitron_core.model.transformer import MultiTRON
from multitron_core.preference.keys import pi_vector
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary

ABLATION_SESSIONS = 2_000
"""Number of test sessions for the ablation, taken from the start of the test split."""

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Steps:
    """Evaluation steps: the clicks before each step, its target, and whether the target is ordered later."""

    prefixes: list[np.ndarray]  # int32 [clicks] each
    targets: np.ndarray  # int64 [steps]
    ordered: np.ndarray  # bool [steps]
    last: np.ndarray  # bool [steps], last step of its session


def steps_of(test: EncodedSessions, max_length: int, sessions: int = ABLATION_SESSIONS) -> Steps:
    """Evaluation steps of the first sessions, the same steps as in `multitron_core.metrics`.

    Args:
        test: Sessions of the test split.
        max_length: Maximum number of steps per session; the last ones are used.
        sessions: Maximum number of sessions.
    """
    prefixes, targets, ordered, last = [], [], [], []
    for row in range(min(len(test), sessions)):
        clicks = slice(int(test.offsets[row]), int(test.offsets[row + 1]))
        items, labels = np.asarray(test.items[clicks]), np.asarray(test.ordered[clicks])
        first = max(0, len(items) - 1 - max_length)  # training and the front truncate long sessions alike
        for step in range(first + 1, len(items)):
            prefixes.append(items[first:step])
            targets.append(int(items[step]))
            ordered.append(bool(labels[step]))
            last.append(step == len(items) - 1)
    return Steps(prefixes, np.array(targets, np.int64), np.array(ordered, bool), np.array(last, bool))


def ablation(
    model: MultiTRON, test: EncodedSessions, pi: str, *, k: int = 20, sessions: int = ABLATION_SESSIONS, seed: int = 1
) -> pl.DataFrame:
    """Measure how much the ranking metrics depend on each part of the model's input.

    The same trained model ranks the same steps with a part of its input removed or changed.

    Args:
        model: Trained model in evaluation mode.
        test: Sessions of the test split.
        pi: Preference key of the operating point.
        k: List length of the metrics.
        sessions: Maximum number of sessions, taken from the start of `test`.
        seed: Seed of the shuffled variant.

    Returns:
        One row per variant, the unchanged input first: `input`, the metrics of `ranking_metrics`, and `change`, the
        click recall minus that of the first row.
    """
    steps = steps_of(test, model.config.max_length, sessions)
    random = np.random.default_rng(seed)

    def shuffled(prefix: np.ndarray) -> np.ndarray:
        return np.concatenate([random.permutation(prefix[:-1].copy()), prefix[-1:]])

    variants: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
        ("all clicks", lambda prefix: prefix, pi),
        ("last three clicks", lambda prefix: prefix[-3:], pi),
        ("last click only", lambda prefix: prefix[-1:], pi),
        ("earlier clicks shuffled", shuffled, pi),
        ("all but the last click", lambda prefix: prefix[:-1] if len(prefix) > 1 else prefix, pi),
    ]
    if pi != "0.00":
        variants.append(("all clicks, preference 0.00", lambda prefix: prefix, "0.00"))
    rows = []
    for name, change, preference in variants:
        ranks = ranks_of(model, [change(prefix) for prefix in steps.prefixes], steps.targets, preference)
        table = pl.DataFrame({"rank": ranks, "ordered": steps.ordered, "last": steps.last})
        rows.append({"input": name, **ranking_metrics(table, k=k)})
    frame = pl.DataFrame(rows, infer_schema_length=None)
    recall = pl.col(f"click_recall_{k}")
    return frame.with_columns((recall - recall.first()).alias("change"))


@torch.inference_mode()
def ranks_of(model: MultiTRON, prefixes: Sequence[np.ndarray], targets: np.ndarray, pi: str) -> np.ndarray:
    """Exact ranks of the targets over the full catalogue.

    Args:
        model: Trained model in evaluation mode.
        prefixes: One int array of item indices per step, oldest click first.
        targets: int64 [steps], the item index to rank at each step.
        pi: Preference key.

    Returns:
        int64 [steps], 1 for the best item.
    """
    weight = model.item_embedding.weight
    states = states_of(model, prefixes, pi)
    ranks = torch.empty(len(prefixes), dtype=torch.int64)
    wanted = torch.from_numpy(targets).to(weight.device)
    for place, scores in score_blocks(states, weight[1:]):
        ranks[place] = target_ranks(scores, wanted[place]).cpu()
    return ranks.numpy()


@torch.inference_mode()
def states_of(model: MultiTRON, prefixes: Sequence[np.ndarray], pi: str) -> torch.Tensor:
    """Model states after the last click of each prefix.

    Args:
        model: Trained model in evaluation mode.
        prefixes: One int array of item indices per prefix, oldest click first.
        pi: Preference key.

    Returns:
        float [prefixes, d] on the model's device, in the order of `prefixes`.
    """
    device = model.item_embedding.weight.device
    preference = torch.tensor(pi_vector(pi), dtype=torch.float32, device=device)
    by_length = np.argsort([len(prefix) for prefix in prefixes], kind="stable")
    states = torch.empty(len(prefixes), model.config.dimension, device=device)
    for start in range(0, len(prefixes), _BATCH):
        rows = by_length[start : start + _BATCH]
        lengths = np.array([len(prefixes[row]) for row in rows], np.int64)
        items = np.zeros((len(rows), lengths.max()), np.int64)
        for place, row in enumerate(rows):
            items[place, : lengths[place]] = prefixes[row]
        last = model.last_states(torch.from_numpy(items).to(device), torch.from_numpy(lengths).to(device), preference)
        states[torch.from_numpy(rows).to(device)] = last
    return states


@dataclass(frozen=True)
class Example:
    """A test session, its last click as the target, and its recommendation lists."""

    session_id: str
    clicks: tuple[int | str, ...]  # item ids before the target, oldest first
    next_item: int | str  # item id of the target
    ordered: bool  # whether the target was ordered later
    lists: dict[str, tuple[int | str, ...]]  # item ids by preference key, best first


def examples(
    model: MultiTRON,
    test: EncodedSessions,
    vocabulary: Vocabulary,
    preferences: Sequence[str],
    *,
    shown: int = 4,
    k: int = 10,
    candidates: int = 400,
) -> list[Example]:
    """Select sessions whose lists differ most between the first and the last preference.

    Sessions whose target is in one of the lists are preferred. Up to half of the result are sessions whose target was
    ordered. The selection is not representative: the metrics measure how often the lists contain the target.

    Args:
        model: Trained model in evaluation mode.
        test: Sessions of the test split.
        vocabulary: Vocabulary of model and sessions.
        preferences: Preference keys, one list per key.
        shown: Maximum number of sessions to return.
        k: Items per list.
        candidates: Maximum number of sessions to select from; three to ten clicks if there are such sessions.

    Returns:
        At most `shown` examples, ordered targets first.
    """
    lengths = test.lengths
    rows = np.flatnonzero((lengths >= 3) & (lengths <= 10))
    if not len(rows):
        rows = np.flatnonzero(lengths >= 2)
    ends = test.offsets[rows + 1] - 1
    rows = np.concatenate([rows[test.ordered[ends]][: candidates // 2], rows[~test.ordered[ends]][: candidates // 2]])
    clicks = [np.asarray(test.items[test.offsets[row] : test.offsets[row + 1]]) for row in rows]
    best = {
        pi: _best_items(model, [items[:-1][-model.config.max_length :] for items in clicks], pi, k)
        for pi in preferences
    }
    first, final = best[preferences[0]], best[preferences[-1]]
    shared = np.array([len(set(a) & set(b)) for a, b in zip(first.tolist(), final.tolist(), strict=True)])
    ordered = np.array([bool(test.ordered[test.offsets[row + 1] - 1]) for row in rows], bool)
    target = np.array([items[-1] for items in clicks])
    found = np.array([any(target[i] in lists[i] for lists in best.values()) for i in range(len(target))], bool)
    order = np.lexsort((shared, ~found))  # target in a list first, then fewest shared items
    chosen: list[int] = []
    for kind, wanted in ((True, shown // 2), (False, shown)):
        places = order[ordered[order] == kind]
        chosen += places[: wanted if kind else shown - len(chosen)].tolist()

    def ids(indices: np.ndarray) -> tuple[int | str, ...]:
        return tuple(vocabulary.decode(indices).to_list())

    return [
        Example(
            session_id=str(test.session_ids[int(rows[place])]),
            clicks=ids(clicks[place][:-1]),
            next_item=ids(clicks[place][-1:])[0],
            ordered=bool(ordered[place]),
            lists={pi: ids(best[pi][place]) for pi in preferences},
        )
        for place in chosen
    ]


@torch.inference_mode()
def _best_items(model: MultiTRON, prefixes: Sequence[np.ndarray], pi: str, k: int) -> np.ndarray:
    """Indices of the k best items per prefix, int32 [prefixes, k]."""
    k = min(k, model.config.items)
    best = np.empty((len(prefixes), k), np.int32)
    for place, scores in score_blocks(states_of(model, prefixes, pi), model.item_embedding.weight[1:]):
        best[place] = 1 + scores.topk(k, dim=1).indices.cpu().numpy()
    return best
