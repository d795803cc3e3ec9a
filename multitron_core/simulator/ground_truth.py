"""Ground truth of a simulated shop: its items, the behaviour of its shoppers, and the expected value of lists.

The first click of a session is drawn by attraction (popularity times click appeal). Each further click is one of these:

- a walk within the category, in a direction that is drawn once per session. The items of a category are on a ring. The
  next item is drawn by attraction, weighted by its distance from the point one `step` ahead; the current item is
  excluded.
- a return to one of the session's earlier clicks, with equal probabilities (`return_share`);
- a switch to any item of the shop, drawn by attraction (`switch_share`).

Each item of a session is ordered with the probability `order_propensity[item]`, after the session's last click on it.
So a click on item j has the label "ordered later" with this probability, independent of all other clicks. Click appeal
and order propensity are negatively correlated, so that clicks and orders are conflicting objectives. The best possible
trade-off between them is known exactly. The direction is hidden, but the clicks are evidence of it: `Truth` weighs both
directions by Bayes' rule. Its probabilities are those of an observer who knows the shop and the session's clicks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from multitron_core.errors import InputError

Lists = Sequence[Sequence[int]] | np.ndarray
"""One list of item ids per session, all of the same length."""


@dataclass(frozen=True)
class Habits:
    """Behaviour of the shoppers in a simulated shop; shares and rates are in [0, 1].

    Raises:
        InputError: A value is out of range.
    """

    category_size: int = 64  # items per category, which is one ring
    popularity_exponent: float = 0.55  # Zipf: popularity of rank r is r^-exponent
    step: float = 0.12  # distance of the point ahead, as a share of the ring
    width: float = 0.14  # standard deviation of a walk around that point, as a share of the ring
    return_share: float = 0.10  # probability that a click is a return
    switch_share: float = 0.15  # probability that a click is a switch
    appeal_spread: float = 0.6  # standard deviation of the logarithm of click appeal
    propensity_spread: float = 1.3  # standard deviation of the logarithm of order propensity
    disagreement: float = 0.8  # negative correlation of the two logarithms
    order_rate: float = 0.04  # order propensity of an average click
    cart_rate: float = 0.08  # probability that an item of a session is put into the cart, if it is not ordered
    mean_clicks: float = 5.0  # mean of the geometric number of clicks per session, before the limit max_clicks
    max_clicks: int = 40

    def __post_init__(self) -> None:
        shares = ("return_share", "switch_share", "disagreement", "order_rate", "cart_rate")
        checks = {name: 0.0 <= getattr(self, name) <= 1.0 for name in shares}
        checks |= {name: getattr(self, name) > 0 for name in ("step", "width", "order_rate")}
        checks |= {
            "category_size": self.category_size >= 2,
            "switch_share": 0.0 < self.switch_share <= 1.0 - self.return_share,
            "mean_clicks": self.mean_clicks >= 1.0,
            "max_clicks": self.max_clicks >= 1,
        }
        for name, good in checks.items():
            if not good:
                raise InputError(
                    "a habit is out of range",
                    where=f"Habits.{name}",
                    found=getattr(self, name),
                    hint="shares are in [0, 1], sizes are positive, and return and switch share add up to at most 1",
                )


def make_items(items: int, habits: Habits, *, seed: int) -> pl.DataFrame:
    """Draw the catalogue of a shop.

    Args:
        items: Number of items, 20 or more.
        habits: Spreads and rates. A category has at least `habits.category_size` items, except in smaller shops.
        seed: Seed; the same seed gives the same catalogue.

    Returns:
        One row per item, sorted by category and position: `item_id` Int64 (1..items, shuffled), `category` Int32,
        `position` Float64 in [0, 1) on the category's ring, `popularity` Float64 (sums to 1), `click_appeal` Float64,
        `order_propensity` Float64 in (0, 0.6].

    Raises:
        InputError: There are fewer than 20 items.
    """
    if items < 20:
        raise InputError("a shop needs more items", where="items", found=items, hint="use 20 items or more")
    rng = np.random.default_rng([seed, 0])
    categories = max(1, items // habits.category_size)
    category = np.arange(items) * categories // items
    position = rng.random(items)
    popularity = rng.permutation(np.arange(1, items + 1) ** -habits.popularity_exponent)
    popularity /= popularity.sum()
    taste, noise = rng.standard_normal((2, items))
    appeal = np.exp(habits.appeal_spread * taste)
    against = -habits.disagreement * taste + np.sqrt(1.0 - habits.disagreement**2) * noise
    propensity = np.exp(habits.propensity_spread * against)
    attraction = popularity * appeal
    propensity *= habits.order_rate * attraction.sum() / (attraction * propensity).sum()
    return pl.DataFrame(
        {
            "item_id": rng.permutation(items).astype(np.int64) + 1,
            "category": category.astype(np.int32),
            "position": position,
            "popularity": popularity,
            "click_appeal": appeal,
            "order_propensity": np.minimum(propensity, 0.6),
        }
    ).sort("category", "position")


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact probabilities of clicks and orders in a simulated shop.

    Args:
        items: The catalogue, as `make_items` returns it.
        habits: Habits that the items and the sessions were drawn with.
    """

    items: pl.DataFrame
    habits: Habits

    @classmethod
    def load(cls, folder: Path | str) -> Truth:
        """Load the ground truth of the raw files that `multitron_core.simulator.simulate` wrote into `folder`.

        Raises:
            InputError: `folder` has no simulation.
        """
        truth = Path(folder) / "truth"
        try:
            items = pl.read_parquet(truth / "items.parquet")
            habits = json.loads((truth / "parameters.json").read_text())["habits"]
            return cls(items, Habits(**habits))
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise InputError(
                "the ground truth of a simulation cannot be read", where=truth, found=str(error), hint="simulate again"
            ) from error

    @cached_property
    def attraction(self) -> np.ndarray:
        """float64 [items], probability that a session starts at an item, and that a switch leads to it."""
        attraction = (self.items["popularity"] * self.items["click_appeal"]).to_numpy()
        return attraction / attraction.sum()

    @cached_property
    def order_propensity(self) -> np.ndarray:
        """float64 [items], probability that an item of a session is ordered."""
        return self.items["order_propensity"].to_numpy()

    @cached_property
    def category(self) -> np.ndarray:
        """int64 [items], category of each item, not decreasing."""
        return self.items["category"].to_numpy().astype(np.int64)

    @cached_property
    def first(self) -> np.ndarray:
        """int64 [items], first row of the item's category."""
        return np.searchsorted(self.category, self.category)

    @cached_property
    def walk(self) -> np.ndarray:
        """float64 [items, 2, largest category], probabilities of a walk from an item in a direction to each slot.

        Slot s of an item's category is row `first[item] + s`; slots beyond the category have probability 0.
        """
        rows = np.arange(len(self.items))
        size = np.bincount(self.category)
        slots = np.arange(size.max())
        member = np.minimum(self.first[:, None] + slots, len(rows) - 1)  # [items, slots]
        position = self.items["position"].to_numpy()
        offset = position[member] - position[:, None]  # [items, slots]
        open_slot = (slots < size[self.category][:, None]) & (member != rows[:, None])
        weight = np.where(open_slot, self.attraction[member], 0.0)
        walk = np.empty((len(rows), 2, len(slots)))
        for direction, step in enumerate((self.habits.step, -self.habits.step)):
            distance = offset - step
            distance -= np.round(distance)  # the shorter distance around the ring
            walk[:, direction] = weight * np.exp(-0.5 * (distance / self.habits.width) ** 2)
        return walk / walk.sum(axis=2, keepdims=True)

    def next_click(self, sessions: Sequence[Sequence[int]]) -> np.ndarray:
        """Probabilities of the next click, given that the session continues.

        Args:
            sessions: Item ids of each session's clicks from its start, at least one click per session.

        Returns:
            float64 [sessions, items], in the order of `items`; 8 bytes per session and item.

        Raises:
            InputError: A session has no click, or an item is not in the shop.
        """
        clicks, lengths = self._padded(sessions)
        habits, rows = self.habits, np.arange(len(clicks))
        walk_share = 1.0 - habits.return_share - habits.switch_share
        evidence = np.zeros((len(clicks), 2))  # log-likelihood of the clicks under each direction
        for step in range(1, clicks.shape[1]):
            current, last = clicks[:, step], clicks[:, step - 1]
            returned = (clicks[:, :step] == current[:, None]).mean(axis=1)
            same_category = self.category[current] == self.category[last]
            slot = np.where(same_category, current - self.first[current], 0)
            walked = np.where(same_category[:, None], self.walk[last, :, slot], 0.0)
            other = habits.return_share * returned + habits.switch_share * self.attraction[current]
            likelihood = np.log(other[:, None] + walk_share * walked)
            evidence += np.where((step < lengths)[:, None], likelihood, 0.0)
        belief = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        belief /= belief.sum(axis=1, keepdims=True)
        last = clicks[rows, lengths - 1]
        probability = np.tile(habits.switch_share * self.attraction, (len(clicks), 1))
        for step in range(clicks.shape[1]):
            inside = np.flatnonzero(step < lengths)
            probability[inside, clicks[inside, step]] += habits.return_share / lengths[inside]
        walked = walk_share * np.einsum("nd,nds->ns", belief, self.walk[last])
        target = self.first[last][:, None] + np.arange(walked.shape[1])
        inside = target < len(self.items)
        np.add.at(probability, (np.broadcast_to(rows[:, None], target.shape)[inside], target[inside]), walked[inside])
        return probability

    def expected_clicks(self, sessions: Sequence[Sequence[int]], lists: Lists) -> np.ndarray:
        """Probability that the next click is on an item of the session's list.

        Args:
            sessions: Item ids of each session's clicks, as for `next_click`.
            lists: int [sessions, k], distinct item ids recommended to each session.

        Returns:
            float64 [sessions]; the mean is the expected click recall@k of the lists.

        Raises:
            InputError: The numbers of sessions and lists differ, a list contains an item twice, a session has no click,
                or an item is not in the shop.
        """
        return self._expected_value(sessions, lists, np.ones(len(self.items)))

    def expected_orders(self, sessions: Sequence[Sequence[int]], lists: Lists) -> np.ndarray:
        """Probability that the next click is on an item of the session's list and the item is ordered in the session.

        Arguments, result and errors as for `expected_clicks`.
        """
        return self._expected_value(sessions, lists, self.order_propensity)

    def best_lists(self, sessions: Sequence[Sequence[int]], k: int, *, pi_order: float) -> np.ndarray:
        """Optimal lists: they maximise (1 - pi_order) clicks + pi_order orders / `order_rate`, both as expected values.

        Clicks and orders are sums over the items of a list. So the optimal list consists of the k items with the
        highest weighted values, and `pi_order` from 0 to 1 gives the convex part of the true Pareto front of lists.

        Args:
            sessions: Item ids of each session's clicks, as for `next_click`.
            k: Number of items per list.
            pi_order: Weight of orders, in [0, 1].

        Returns:
            int64 [sessions, k], item ids, the best first.
        """
        weight = (1.0 - pi_order) + pi_order * self.order_propensity / self.habits.order_rate
        ids = self.items["item_id"].to_numpy()
        best = [
            np.argsort(-self.next_click(sessions[part]) * weight, axis=1, kind="stable")[:, :k]
            for part in self._parts(len(sessions))
        ]
        return ids[np.concatenate(best)]

    def _expected_value(self, sessions: Sequence[Sequence[int]], lists: Lists, value: np.ndarray) -> np.ndarray:
        """Expected value of each list, float64 [sessions]; `value` [items] is the value of a click on each item."""
        if len(lists) != len(sessions):
            raise InputError(
                "the numbers of sessions and lists differ",
                found={"sessions": len(sessions), "lists": len(lists)},
                hint="use one list per session",
            )
        chosen = self._rows(np.asarray(lists)).reshape(len(lists), -1)
        if (np.diff(np.sort(chosen, axis=1), axis=1) == 0).any():
            raise InputError("a list contains an item twice", where="lists", hint="use distinct items per list")
        parts = [
            np.take_along_axis(self.next_click(sessions[part]) * value, chosen[part], axis=1).sum(axis=1)
            for part in self._parts(len(sessions))
        ]
        return np.concatenate(parts)

    def _parts(self, sessions: int) -> Iterator[slice]:
        step = max(1, 8_000_000 // len(self.items))  # 64 MB of probabilities at a time
        return (slice(start, start + step) for start in range(0, sessions, step))

    @cached_property
    def _row_of_id(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.items["item_id"].to_numpy())
        return self.items["item_id"].to_numpy()[order], order

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        ids = np.asarray(ids, dtype=np.int64).ravel()
        sorted_ids, order = self._row_of_id
        place = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
        unknown = sorted_ids[place] != ids
        if unknown.any():
            raise InputError(
                "the shop does not have this item",
                found=int(ids[unknown][0]),
                hint="use the truth of the sessions' shop",
            )
        return order[place]

    def _padded(self, sessions: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([len(session) for session in sessions], dtype=np.int64)
        if not len(lengths) or not lengths.all():
            raise InputError("a session without clicks has no next click", hint="use sessions with at least one click")
        clicks = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
        inside = np.arange(clicks.shape[1]) < lengths[:, None]
        clicks[inside] = self._rows(np.concatenate([np.asarray(session, dtype=np.int64) for session in sessions]))
        return clicks, lengths
