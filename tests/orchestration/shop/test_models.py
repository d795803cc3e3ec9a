from __future__ import annotations

import json
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.shop import models
from orchestration.shop.home import Shop
from orchestration.shop.settings import demo_settings

ENTRIES = {"model": {"items": 3}, "training": {}, "vocabulary_hash": "hash"}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop with two model folders, and next to one of them the folders that a training writes and replaces."""
    for name, version in (("demo-1", "a"), ("demo-2", "b"), ("demo-2.writing", "b"), ("demo-2.replaced", "b")):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps({**ENTRIES, "version": version}))
    return Shop(home=tmp_path, settings=demo_settings())


def test_folder_of_finds_the_complete_folder(shop: Shop) -> None:
    assert models.folder_of(shop, "b") == shop.models / "demo-2"


def test_folder_of_ignores_a_half_written_config(shop: Shop) -> None:
    (shop.models / "demo-3.writing").mkdir()
    (shop.models / "demo-3.writing" / "config.json").write_text('{"version": ')
    assert models.folder_of(shop, "a") == shop.models / "demo-1"


def test_folder_of_names_the_existing_versions(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"\['a', 'b'\]"):
        models.folder_of(shop, "c")


def test_newest_is_the_model_that_was_recorded(shop: Shop) -> None:
    with pytest.raises(InputError, match="no trained model"):
        models.newest(shop)
    models.set_newest(shop, shop.models / "demo-1")
    assert models.newest(shop) == shop.models / "demo-1"
