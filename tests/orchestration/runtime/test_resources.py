from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.runtime.resources import ShopResource, triton_server
from orchestration.shop.home import load_shop
from orchestration.shop.settings import Settings, demo_settings
from orchestration.shop.toml import write_shop
from serving.in_process import InProcessServer
from serving.server import TritonServer


@pytest.fixture
def resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShopResource:
    for name in ("MULTITRON_SCORER", "MULTITRON_TRITON_URL"):
        monkeypatch.delenv(name, raising=False)
    triton = {"urls": ["a:1", "b:2"], "timeout_seconds": 7.0, "ready_seconds": 3.0}
    write_shop(tmp_path, Settings.model_validate({**demo_settings().model_dump(), "triton": triton}))
    return ShopResource(home=str(tmp_path))


def test_shop_resource_loads_the_current_settings(resource: ShopResource) -> None:
    write_shop(resource.home, demo_settings())
    assert resource.load().settings == demo_settings()


def test_shop_resource_server_follows_the_scorer(resource: ShopResource, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(resource.server(), TritonServer)
    monkeypatch.setenv("MULTITRON_SCORER", "in_process")
    assert isinstance(resource.server(), InProcessServer)


def test_triton_server_uses_the_urls_of_the_settings(resource: ShopResource) -> None:
    assert triton_server(load_shop(resource.home)).urls == ("a:1", "b:2")
