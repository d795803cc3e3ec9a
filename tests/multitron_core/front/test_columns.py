from __future__ import annotations

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.columns import list_length, objective_names

FRONT = pl.DataFrame({"pi_order": [0.5], "pi_click": [0.5], "click_loss": [1.0], "click_recall_7": [0.1]})


def test_objective_names_start_with_clicks() -> None:
    assert objective_names(FRONT) == ["click", "order"]


def test_list_length_is_read_from_click_recall() -> None:
    assert list_length(FRONT) == "7"
    with pytest.raises(InputError, match="no click recall"):
        list_length(FRONT.drop("click_recall_7"))
