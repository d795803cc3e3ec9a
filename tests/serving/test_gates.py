"""Quality gates on fronts in version folders."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from serving.gates import better_than, no_worse_than_live


def write_front(folder: Path, *, recall: float | None = 0.5, loss: float = 1.0) -> Path:
    """A version folder with a front of two points; the recalls and losses of the second are a tenth lower."""
    columns = {"click_recall_20": 0.5, "order_recall_20": recall, "click_loss": loss, "order_loss": loss}
    folder.mkdir()
    pl.DataFrame(
        {name: [value, None if value is None else value * 0.9] for name, value in columns.items()},
        schema=dict.fromkeys(columns, pl.Float64),
    ).write_parquet(folder / "front.parquet")
    return folder


def test_write_front_that_is_as_good_passes(tmp_path: Path) -> None:
    live = write_front(tmp_path / "live")
    no_worse_than_live()(write_front(tmp_path / "same"), live)
    no_worse_than_live(tolerance=0.1)(write_front(tmp_path / "near", recall=0.46), live)
    no_worse_than_live()(write_front(tmp_path / "first"), None)
    better_than({"click_recall_20": 0.47})(write_front(tmp_path / "better"), None)


def test_gates_refuse_a_worse_front_with_its_value(tmp_path: Path) -> None:
    live = write_front(tmp_path / "live")
    with pytest.raises(InputError, match=r"worse than the live.*order_recall_20.*0\.44"):
        no_worse_than_live()(write_front(tmp_path / "recall", recall=0.44), live)
    with pytest.raises(InputError, match="hypervolume"):
        no_worse_than_live()(write_front(tmp_path / "loss", loss=2.0), live)
    with pytest.raises(InputError, match=r"no better than co-visitation.*click_recall_20"):
        better_than({"click_recall_20": 0.5})(write_front(tmp_path / "equal"), None)


def test_gates_ignore_points_with_untrained_ranks(tmp_path: Path) -> None:
    folder = write_front(tmp_path / "front")
    front = pl.read_parquet(folder / "front.parquet").with_columns(pl.Series("ranks_trained", [False, True]))
    front.write_parquet(folder / "front.parquet")
    better_than({"click_recall_20": 0.44})(folder, None)
    with pytest.raises(InputError, match=r"no better than.*0\.45"):
        better_than({"click_recall_20": 0.47})(folder, None)
    with pytest.raises(InputError, match="worse than the live"):
        no_worse_than_live()(folder, write_front(tmp_path / "live"))


def test_gates_on_missing_measurements(tmp_path: Path) -> None:
    live = write_front(tmp_path / "live", recall=None)  # a week without orders has no order recall to compare
    no_worse_than_live()(write_front(tmp_path / "none", recall=None), live)
    with pytest.raises(InputError, match="not evaluated"):
        no_worse_than_live()(tmp_path, live)
    with pytest.raises(InputError, match="lacks a column"):
        better_than({"mrr": 0.1})(live, None)
    with pytest.raises(InputError, match="tolerance"):
        no_worse_than_live(tolerance=1.5)
