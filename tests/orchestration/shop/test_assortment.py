from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.shop.assortment import night_assortment, read_assortment, save_assortment
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings
from tests.orchestration.conftest import DAYS, SETTINGS

VOCABULARY = Vocabulary(pl.Series([7, 8, 9], dtype=pl.Int64))


def shop_with(home: Path, assortment: str | None) -> Shop:
    scoring = {**SETTINGS["scoring"], **({} if assortment is None else {"assortment": assortment})}
    return Shop(home=home, settings=Settings.model_validate({**SETTINGS, "scoring": scoring}))


def write(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_delta(path)


@pytest.mark.parametrize("name", ["items.parquet", "items.csv", "items"])
def test_read_assortment_takes_the_rows_of_the_day(tmp_path: Path, name: str) -> None:
    rows = {"item_id": [9, 7, 7, None, 5], "run_date": [DAYS[0], DAYS[0], DAYS[0], DAYS[0], DAYS[1]]}
    write(pl.DataFrame(rows), tmp_path / name)
    found = read_assortment(shop_with(tmp_path, name), DAYS[0], VOCABULARY)
    assert found is not None
    assert found.to_list() == [7, 9]
    assert found.dtype == pl.Int64
    with pytest.raises(InputError, match=r"no item.*2026-03-03"):
        read_assortment(shop_with(tmp_path, name), DAYS[2], VOCABULARY)


def test_read_assortment_puts_the_day_into_the_path(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["b", "a"]}).write_parquet(tmp_path / "items-2026-03-02.parquet")
    shop, texts = shop_with(tmp_path, "items-{date}.parquet"), Vocabulary(pl.Series(["a", "b", "c"]))
    found = read_assortment(shop, DAYS[1], texts)
    assert found is not None
    assert found.to_list() == ["a", "b"]
    with pytest.raises(InputError, match="not a readable table of item ids"):
        read_assortment(shop, DAYS[1], VOCABULARY)
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_assortment(shop, DAYS[0], texts)


def test_read_assortment_refuses_a_table_without_item_ids(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["007"]}).write_csv(tmp_path / "texts.csv")
    found = read_assortment(shop_with(tmp_path, "texts.csv"), DAYS[0], Vocabulary(pl.Series(["007"])))
    assert found is not None
    assert found.to_list() == ["007"]
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_assortment(shop_with(tmp_path, "no-table"), DAYS[0], VOCABULARY)
    pl.DataFrame({"item": [7]}).write_csv(tmp_path / "items.csv")
    with pytest.raises(InputError, match="item_id"):
        read_assortment(shop_with(tmp_path, "items.csv"), DAYS[0], VOCABULARY)
    assert read_assortment(shop_with(tmp_path, None), DAYS[0], VOCABULARY) is None


def test_night_assortment_requires_the_saved_file(tmp_path: Path) -> None:
    shop = shop_with(tmp_path, "items.csv")
    with pytest.raises(UnavailableError, match="materialize `assortment` of 2026-03-01"):
        night_assortment(shop, DAYS[0])
    save_assortment(shop, DAYS[0], pl.Series([7]))
    kept = night_assortment(shop, DAYS[0])
    assert kept is not None
    assert kept.to_list() == [7]
    save_assortment(shop, DAYS[0], None)
    assert night_assortment(shop_with(tmp_path, None), DAYS[0]) is None
