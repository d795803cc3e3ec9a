"""Read objectives and list length from the column names of a front table."""

from __future__ import annotations

import polars as pl

from multitron_core.errors import InputError


def objective_names(front: pl.DataFrame) -> list[str]:
    """Names of the front's objectives, clicks first.

    Args:
        front: Table as `front_table` returns it; its columns `pi_...` are in reverse order of the objectives.
    """
    return [name.removeprefix("pi_") for name in reversed(front.columns) if name.startswith("pi_")]


def list_length(front: pl.DataFrame) -> str:
    """List length k of the front's ranking metrics, the suffix of its column `click_recall_k`.

    Args:
        front: Table as `front_table` returns it.

    Raises:
        InputError: The table has no such column.
    """
    lengths = [name.removeprefix("click_recall_") for name in front.columns if name.startswith("click_recall_")]
    if not lengths:
        raise InputError("the front has no click recall", found=front.columns, hint="pass a table of `front_table`")
    return lengths[0]
