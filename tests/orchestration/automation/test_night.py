from __future__ import annotations

from orchestration.automation.night import missing_of, published_rows, read_night
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, GRID, ShopInTest


def test_missing_of_a_shop_without_tables_is_everything(bare_shop: ShopInTest) -> None:
    none = published_rows(bare_shop.lake)
    assert none.is_empty()
    assert set(missing_of(GRID, none, None, None)) == set(GRID)


def test_read_night_before_its_first_run(bare_shop: ShopInTest) -> None:
    night = read_night(load_shop(bare_shop.home), bare_shop.lake, DAYS[0])
    assert night.delivery
    assert not night.undelivered
    assert (night.events, night.model_version, night.sessions) == (None, "random", None)
    assert not night.complete
    absent = read_night(load_shop(bare_shop.home), bare_shop.lake, DAYS[-1].replace(day=20))
    assert absent.delivery is None
    assert "no table file of 2026-03-20" in absent.undelivered
