"""Real runs of the deployment assets over a small shop whose model is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from orchestration.code_location import build_definitions
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import ShopInTest, copied_shop


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        yield shop


def test_deployed_model_keeps_a_model_that_is_live(shop: ShopInTest) -> None:
    result = shop.run("training", asset_selection=[dg.AssetKey("deployed_model")])
    assert result.success
    (event,) = result.asset_materializations_for_node("deployed_model")
    assert event.metadata["changed"].value is False
    assert "random" in event.metadata["live"].value


def test_rollback_job_materializes_the_deployed_model(shop: ShopInTest) -> None:
    assert not shop.run("rollback").success, "the first version has no previous one"
    job = build_definitions(load_shop(shop.home)).resolve_job_def("rollback")
    config = {"ops": {"rolled_back_model": {"config": {"version": 1}}}}
    done = job.execute_in_process(instance=shop.instance, run_config=config)
    (event,) = done.asset_materializations_for_node("rolled_back_model")
    assert event.asset_key.path == ["deployed_model"]
    assert event.metadata["triton version"].value == 1
