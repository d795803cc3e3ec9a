"""Objectives of a model and the labels of their events."""

from __future__ import annotations

import numpy as np
import pytest

from multitron_core.errors import InputError
from multitron_core.preference.objectives import Objective, check_objectives, labels_of, objectives_of


@pytest.mark.parametrize("names", [(), ("order", "click"), ("click", "wishlist")])
def test_check_objectives_refuses_other_names(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"unknown objectives.*'click'.*cart, order"):
        check_objectives(names)


def test_objectives_of_click_cart_and_order() -> None:
    assert objectives_of(("click", "cart", "order"), {"cart": "bce", "order": "rank"}, share=0.5) == (
        Objective("click", "click", "softmax"),
        Objective("cart", "cart", "bce", 0.5),
        Objective("order", "order", "rank", 0.5),
    )


def test_labels_of_marks_every_click() -> None:
    ordered = np.array([False, True, False])
    assert labels_of(("click", "order"), {"order": ordered}, 3).tolist() == [
        [True, False],
        [True, True],
        [True, False],
    ]
    with pytest.raises(InputError, match=r"no labels of carts.*objective cart.*'order'"):
        labels_of(("click", "cart"), {"order": ordered}, 3)
