"""The digitised fronts of the paper: shape, order and hypervolume."""

from __future__ import annotations

import pytest

from multitron_core.errors import InputError
from multitron_core.front.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.front.volume import dominated, normalised_hypervolume


@pytest.mark.parametrize(
    ("name", "volume", "non_dominated"), [("diginetica", 0.958, 16), ("yoochoose", 0.850, 19), ("otto", 0.971, 20)]
)
def test_paper_front_has_its_normalised_hypervolume(name: str, volume: float, non_dominated: int) -> None:
    points = paper_front(name).select("click_loss", "order_loss").to_numpy()
    assert len(points) == 26
    assert normalised_hypervolume(points) == pytest.approx(volume, abs=1e-3)
    assert (~dominated(points)).sum() == non_dominated


@pytest.mark.parametrize("name", PAPER_FRONTS)
def test_paper_front_runs_from_clicks_to_orders(name: str) -> None:
    front = paper_front(name)
    assert front["pi_order"].is_sorted()
    assert front["order_loss"][0] == 1.0
    assert front["click_loss"][-1] == 1.0


def test_paper_front_refuses_another_data_set() -> None:
    with pytest.raises(InputError, match="no front of this data set"):
        paper_front("movielens")
