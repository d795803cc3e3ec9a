"""The truth of a simulated shop: its items, how shoppers wander among them, and what a recommendation list is worth.

A shopper starts at an item drawn by attraction (popularity times click appeal) and then, click by click,

- walks on within the category with a direction of his own: items lie on a ring, the next one is drawn by attraction
  around a point a `step` ahead (all items of the category but the present one);
- or returns to one of the session's earlier clicks, each as likely (`return_share`);
- or switches, starting anew anywhere in the shop (`switch_share`).

Every item of a session is ordered with its own order propensity, after the session's last click on it. So a click on
item j is labelled "ordered later" with probability `order_propensity[j]`, whatever was clicked before. Appeal and
propensity are negatively correlated: what is clicked next and what is ordered disagree, and the best possible trade-off
between the two is known exactly. The direction is hidden, but the clicks tell about it: `Truth` weighs both by Bayes'
rule, so its probabilities are those of an observer who knows the shop and has seen the session.
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


@dataclass(frozen=True)
class Habits:
    """How the shoppers of a simulated shop behave; shares and rates lie in [0, 1]."""

    category_size: int = 64  # items that lie on one ring
    popularity_exponent: float = 0.55  # Zipf: popularity of rank r is r^-exponent
    step: float = 0.12  # how far ahead the next click is, as a part of the ring
    width: float = 0.14  # standard deviation around that point, as a part of the ring
    return_share: float = 0.10
    switch_share: float = 0.15
    appeal_spread: float = 0.6  # standard deviation of the logarithm of click appeal
    propensity_spread: float = 1.3  # standard deviation of the logarithm of order propensity
    disagreement: float = 0.8  # minus the correlation of the two logarithms
    order_rate: float = 0.04  # order propensity of an average click
    cart_rate: float = 0.08  # carts of items that are not ordered, an item of a session
    mean_clicks: float = 5.0  # of a session; the number is geometric, cut at max_clicks
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
                raise InputError("a habit is out of range", where=f"Habits.{name}", found=getattr(self, name))


def make_items(items: int, habits: Habits, *, seed: int) -> pl.DataFrame:
    """The catalogue of a shop.

    Args:
        items: number of items, 20 or more.
        habits: gives the spreads; categories have `habits.category_size` items, or one more.
        seed: the same seed gives the same catalogue.

    Returns:
        A row an item, by category and position: `item_id` Int64 (1..items, shuffled), `category` Int32, `position`
        Float64 in [0, 1) on the category's ring, `popularity` Float64 (sums to 1), `click_appeal` Float64,
        `order_propensity` Float64 in (0, 0.6].

    Raises:
        InputError: fewer than 20 items.
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
    """A simulated shop as its maker knows it.

    Args:
        items: what `make_items` gives.
        habits: the habits that the items and the sessions were made with.
    """

    items: pl.DataFrame
    habits: Habits

    @classmethod
    def load(cls, folder: Path | str) -> Truth:
        """The truth beside the raw files that `multitron_core.simulator.simulate` wrote into `folder`.

        Raises:
            InputError: no simulation stands there.
        """
        truth = Path(folder) / "truth"
        try:
            items = pl.read_parquet(truth / "items.parquet")
            habits = json.loads((truth / "parameters.json").read_text())["habits"]
            return cls(items, Habits(**habits))
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise InputError(
                "the truth of a simulation cannot be read", where=truth, found=str(error), hint="simulate again"
            ) from error

    @cached_property
    def attraction(self) -> np.ndarray:
        """float64 [items], the probability that a session (or a switch) starts at an item."""
        attraction = (self.items["popularity"] * self.items["click_appeal"]).to_numpy()
        return attraction / attraction.sum()

    @cached_property
    def order_propensity(self) -> np.ndarray:
        """float64 [items], the probability that an item of a session is ordered."""
        return self.items["order_propensity"].to_numpy()

    @cached_property
    def category(self) -> np.ndarray:
        """int64 [items], rising."""
        return self.items["category"].to_numpy().astype(np.int64)

    @cached_property
    def first(self) -> np.ndarray:
        """int64 [items], the row at which the item's category starts."""
        return np.searchsorted(self.category, self.category)

    @cached_property
    def walk(self) -> np.ndarray:
        """float64 [items, 2, largest category]: from an item, in a direction, the probability of each slot.

        Slot s of an item's category is row `first[item] + s`; slots beyond the category have probability 0.
        """
        rows = np.arange(len(self.items))
        size = np.bincount(self.category)
        slots = np.arange(size.max())
        member = np.minimum(self.first[:, None] + slots, len(rows) - 1)  # [items, slots]
        position = self.items["position"].to_numpy()
        away = position[member] - position[:, None]  # [items, slots]
        open_slot = (slots < size[self.category][:, None]) & (member != rows[:, None])
        pull = np.where(open_slot, self.attraction[member], 0.0)
        walk = np.empty((len(rows), 2, len(slots)))
        for direction, step in enumerate((self.habits.step, -self.habits.step)):
            distance = away - step
            distance -= np.round(distance)  # the shorter way round the ring
            walk[:, direction] = pull * np.exp(-0.5 * (distance / self.habits.width) ** 2)
        return walk / walk.sum(axis=2, keepdims=True)

    def next_click(self, sessions: Sequence[Sequence[int]]) -> np.ndarray:
        """The true distribution of the next click, given that there is one.

        Args:
            sessions: item ids of each session's clicks from its start, at least one click a session.

        Returns:
            float64 [sessions, items], in the order of `items`; 8 bytes for every session and item.

        Raises:
            InputError: a session without clicks, or an item that the shop does not have.
        """
        clicks, lengths = self._padded(sessions)
        habits, rows = self.habits, np.arange(len(clicks))
        walk_share = 1.0 - habits.return_share - habits.switch_share
        evidence = np.zeros((len(clicks), 2))  # log-likelihood of the clicks under each direction
        for step in range(1, clicks.shape[1]):
            here, last = clicks[:, step], clicks[:, step - 1]
            returned = (clicks[:, :step] == here[:, None]).mean(axis=1)
            together = self.category[here] == self.category[last]
            slot = np.where(together, here - self.first[here], 0)
            walked = np.where(together[:, None], self.walk[last, :, slot], 0.0)
            other = habits.return_share * returned + habits.switch_share * self.attraction[here]
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
        into = self.first[last][:, None] + np.arange(walked.shape[1])
        inside = into < len(self.items)
        np.add.at(probability, (np.broadcast_to(rows[:, None], into.shape)[inside], into[inside]), walked[inside])
        return probability

    def expected_clicks(self, sessions: Sequence[Sequence[int]], lists: Sequence[Sequence[int]]) -> np.ndarray:
        """The probability that the next click is on the session's list.

        Args:
            sessions: item ids of each session's clicks so far.
            lists: item ids recommended to each session, without repeats, the same number k to each.

        Returns:
            float64 [sessions]; the mean is the click recall@k that the lists reach in expectation.
        """
        return self._worth(sessions, lists, np.ones(len(self.items)))

    def expected_orders(self, sessions: Sequence[Sequence[int]], lists: Sequence[Sequence[int]]) -> np.ndarray:
        """The probability that the next click is on the session's list and its item is ordered in the session.

        Arguments and result as for `expected_clicks`.
        """
        return self._worth(sessions, lists, self.order_propensity)

    def best_lists(self, sessions: Sequence[Sequence[int]], k: int, *, pi_order: float) -> np.ndarray:
        """The lists that nobody can beat: they maximise (1 - pi_order) clicks + pi_order orders / `order_rate`.

        Both goals are sums over the items of a list, so the best list holds the k items of highest weighted worth,
        and sweeping `pi_order` over [0, 1] gives the true Pareto front of lists (its convex part).

        Returns:
            int64 [sessions, k] item ids, the best first.
        """
        weight = (1.0 - pi_order) + pi_order * self.order_propensity / self.habits.order_rate
        ids = self.items["item_id"].to_numpy()
        best = [
            np.argsort(-self.next_click(sessions[part]) * weight, axis=1, kind="stable")[:, :k]
            for part in self._parts(len(sessions))
        ]
        return ids[np.concatenate(best)]

    def _worth(
        self, sessions: Sequence[Sequence[int]], lists: Sequence[Sequence[int]], worth: np.ndarray
    ) -> np.ndarray:
        if len(lists) != len(sessions):
            raise InputError(
                "every session needs a list", found={"sessions": len(sessions), "lists": len(lists)}, hint="give both"
            )
        chosen = self._rows(np.asarray(lists)).reshape(len(lists), -1)
        if (np.diff(np.sort(chosen, axis=1), axis=1) == 0).any():
            raise InputError("a list names an item twice", where="lists", hint="recommend every item once")
        parts = [
            np.take_along_axis(self.next_click(sessions[part]) * worth, chosen[part], axis=1).sum(axis=1)
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
                "the shop does not have this item", found=int(ids[unknown][0]), hint="use the truth of the same shop"
            )
        return order[place]

    def _padded(self, sessions: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([len(session) for session in sessions], dtype=np.int64)
        if not len(lengths) or not lengths.all():
            raise InputError("a session without clicks has no next click", hint="give every session one click or more")
        clicks = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
        inside = np.arange(clicks.shape[1]) < lengths[:, None]
        clicks[inside] = self._rows(np.concatenate([np.asarray(session, dtype=np.int64) for session in sessions]))
        return clicks, lengths
