from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop

FULL: dict[str, Any] = {
    "source": {
        "path": "/data/events",
        "format": "table",
        "files": "events-{date}.csv",
        "columns": {"item_id": 'sku "new"', "event_types": {"view": "click", "buy": "order"}},
        "max_reject_share": 0.02,
    },
    "calendar": {"first_day": dt.date(2026, 3, 1), "last_day": dt.date(2026, 3, 9)},
    "sessions": {"split_days": 2, "state_days": 5},
    "model": {"preset": "diginetica", "device": "cpu", "training": {"epochs": 3, "beta": [0.5, 0.5]}},
    "scoring": {"pi": ["0.10", "0.90"], "k": 20},
    "triton": {"urls": ["a:8001", "b:8001"], "scorer": "triton"},
    "quality": {"min_lists": 0.5},
    "tables": {"root": "s3://bucket/shop", "keep_days": 7},
    "channels": {
        "newsletter": {"owner": "crm@example.com", "pi": "0.37", "k": 10, "exclude_items": [7, "x y"]},
        "product_page": {
            "owner": "shop@example.com",
            "table": "item_recommendations",
            "objective": "order_density",
            "max_click_recall_loss": 0.05,
        },
    },
}


@pytest.mark.parametrize("settings", [demo_settings(), Settings.model_validate(FULL)])
def test_write_shop_writes_what_load_shop_reads(settings: Settings, tmp_path: Path) -> None:
    assert write_shop(tmp_path, settings) == tmp_path / "shop.toml"
    assert load_shop(tmp_path).settings == settings


def test_write_shop_explains_every_section(tmp_path: Path) -> None:
    lines = write_shop(tmp_path, demo_settings()).read_text().splitlines()
    for section in Settings.model_fields:
        comment = lines[lines.index(f"[{section}]") - 1]
        assert comment.startswith("# ")
        assert len(comment) <= 120
