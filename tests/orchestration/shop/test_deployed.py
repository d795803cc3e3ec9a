from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from orchestration.shop.deployed import live_model, live_model_and_vocabulary, live_vocabulary, written_vocabulary
from orchestration.shop.home import Shop, load_shop
from orchestration.shop.settings import demo_settings
from serving.in_process import InProcessServer
from tests.orchestration.conftest import DAYS, ITEMS, copied_shop


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[Shop]:
    with copied_shop(deployed_home, tmp_path / "shop") as copy:
        yield load_shop(copy.home)


def test_live_model_requires_a_deployment(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model is deployed.*deployed_model"):
        live_model(Shop(home=tmp_path, settings=demo_settings()))


def test_live_model_and_vocabulary_are_those_of_the_server(shop: Shop) -> None:
    with InProcessServer(shop.triton_repository) as server:
        live, vocabulary = live_model_and_vocabulary(shop, server)
    assert live.model_version == live_model(shop).model_version == "random"
    assert live.vocabulary_hash == vocabulary.hash == live_vocabulary(shop).hash
    shutil.rmtree(shop.models / "random")
    with pytest.raises(InputError, match="no model folder has this version"):
        live_vocabulary(shop)


def test_written_vocabulary_is_the_live_one_before_any_row(shop: Shop) -> None:
    lake = shop.lake()
    lake.create(pl.Int64)
    version = lake.version("recommendations")
    assert len(written_vocabulary(shop, lake, "recommendations", DAYS[0], "0.50", version)) == ITEMS
