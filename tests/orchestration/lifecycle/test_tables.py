from __future__ import annotations

import datetime as dt

import pytest

from multitron_core.errors import InputError
from orchestration.lifecycle.tables import apply_shop_retention, update_channels
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import ShopInTest


def test_update_channels_refuses_unpublished_preferences(shop: ShopInTest) -> None:
    with pytest.raises(InputError, match=r"not published.*newsletter.*recommendations at pi 0.50.*job `scoring`"):
        update_channels(load_shop(shop.home))
    assert shop.lake.publications().is_empty()


def test_update_channels_may_write_none(shop: ShopInTest) -> None:
    shop.change(channels={})
    updated = update_channels(load_shop(shop.home))
    assert updated.rows.is_empty()
    assert updated.operating_points.is_empty()
    assert updated.delta_version == shop.lake.version("channels")


def test_apply_shop_retention_uses_keep_days(shop: ShopInTest) -> None:
    shop.change(tables={"keep_days": 9}, channels={})
    update_channels(load_shop(shop.home))
    applied = apply_shop_retention(load_shop(shop.home), dt.datetime(2026, 6, 1, tzinfo=dt.UTC))
    assert applied.keep_days == 9
    assert "recommendations" in {report.table for report in applied.tables}
    assert applied.local.nights == ()
