"""The items that may be shown, from shop.toml to the rows: real runs on a small shop."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.code_location import build_definitions
from orchestration.shop.assortment import night_assortment, read_assortment, save_assortment
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.settings import Settings
from tests.orchestration.conftest import DAYS, GRID, SETTINGS, K, ShopInTest, copied_shop

VOCABULARY = Vocabulary(pl.Series([7, 8, 9], dtype=pl.Int64))


def a_shop(home: Path, assortment: str | None) -> Shop:
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
def test_every_format_gives_the_days_items(tmp_path: Path, name: str) -> None:
    rows = {"item_id": [9, 7, 7, None, 5], "run_date": [DAYS[0], DAYS[0], DAYS[0], DAYS[0], DAYS[1]]}
    write(pl.DataFrame(rows), tmp_path / name)
    found = read_assortment(a_shop(tmp_path, name), DAYS[0], VOCABULARY)
    assert found is not None
    assert found.to_list() == [7, 9]
    assert found.dtype == pl.Int64
    with pytest.raises(InputError, match=r"no item.*2026-03-03"):
        read_assortment(a_shop(tmp_path, name), DAYS[2], VOCABULARY)


def test_a_path_can_hold_the_day_and_ids_may_be_texts(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["b", "a"]}).write_parquet(tmp_path / "items-2026-03-02.parquet")
    shop, texts = a_shop(tmp_path, "items-{date}.parquet"), Vocabulary(pl.Series(["a", "b", "c"]))
    found = read_assortment(shop, DAYS[1], texts)
    assert found is not None
    assert found.to_list() == ["a", "b"]
    with pytest.raises(InputError, match="no table of the shop's items"):
        read_assortment(shop, DAYS[1], VOCABULARY)
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_assortment(shop, DAYS[0], texts)


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["007"]}).write_csv(tmp_path / "texts.csv")
    found = read_assortment(a_shop(tmp_path, "texts.csv"), DAYS[0], Vocabulary(pl.Series(["007"])))
    assert found is not None
    assert found.to_list() == ["007"]
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_assortment(a_shop(tmp_path, "no-table"), DAYS[0], VOCABULARY)
    pl.DataFrame({"item": [7]}).write_csv(tmp_path / "items.csv")
    with pytest.raises(InputError, match="item_id"):
        read_assortment(a_shop(tmp_path, "items.csv"), DAYS[0], VOCABULARY)
    assert read_assortment(a_shop(tmp_path, None), DAYS[0], VOCABULARY) is None


def test_a_night_without_its_assortment_does_not_show_everything(tmp_path: Path) -> None:
    shop = a_shop(tmp_path, "items.csv")
    with pytest.raises(UnavailableError, match="materialize `assortment` of 2026-03-01"):
        night_assortment(shop, DAYS[0])
    save_assortment(shop, DAYS[0], pl.Series([7]))
    kept = night_assortment(shop, DAYS[0])
    assert kept is not None
    assert kept.to_list() == [7]
    save_assortment(shop, DAYS[0], None)
    assert night_assortment(a_shop(tmp_path, None), DAYS[0]) is None


def rows_of(shop: ShopInTest, table: str, day: dt.date, pi: str) -> pl.DataFrame:
    return shop.lake.read_recommendations(pi, day, table=table, unpublished=True)


@pytest.mark.slow
def test_only_the_nights_items_are_shown_and_never_what_was_clicked(shop: ShopInTest) -> None:
    allowed = list(range(1000, 1030, 2))
    pl.DataFrame({"item_id": [*allowed, 77_777]}).write_csv(shop.home / "tonight.csv")
    scoring: dict[str, Any] = {"pi": GRID, "k": K, "assortment": "tonight.csv", "exclude_clicked": True}
    shop.change(scoring=scoring)
    day, pi = DAYS[0], GRID[0]
    assert shop.score(day, pi).success
    clicked = load_clicks(shop, day)
    for table in ("recommendations", "item_recommendations", "fallback_recommendations"):
        rows = rows_of(shop, table, day, pi)
        assert set(rows["item_id"]) <= set(allowed)
        assert len(rows) % K == 0
    lists = rows_of(shop, "recommendations", day, pi)
    assert len(lists) == K * clicked["session_id"].n_unique()
    assert lists.join(clicked, on=["session_id", "item_id"], how="semi").is_empty()


def load_clicks(shop: ShopInTest, day: dt.date) -> pl.DataFrame:
    """`session_id`, `item_id`: every click of the night's sessions."""
    here = load_shop(shop.home)
    vocabulary = Vocabulary.load(here.models / "random" / "vocabulary.parquet")
    clicks = EncodedSessions.load(here.scoring_sessions(day)).to_frame().explode("items")
    return clicks.select("session_id", item_id=vocabulary.decode(clicks["items"]))


def test_rollback_is_a_job_that_says_which_version_answers(deployed_home: Path, tmp_path: Path) -> None:
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        assert not shop.run("rollback").success  # one version was deployed: there is none before it
        job = build_definitions(load_shop(shop.home)).resolve_job_def("rollback")
        config = {"ops": {"rolled_back_model": {"config": {"version": 1}}}}
        done = job.execute_in_process(instance=shop.instance, run_config=config)
        (event,) = done.asset_materializations_for_node("rolled_back_model")
    assert event.asset_key.path == ["deployed_model"]
    assert event.metadata["triton version"].value == 1
