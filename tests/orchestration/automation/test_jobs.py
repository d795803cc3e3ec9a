from __future__ import annotations

from pathlib import Path

from orchestration.automation.jobs import JOB_ASSETS
from orchestration.code_location import build_definitions
from orchestration.shop.home import Shop
from orchestration.shop.settings import demo_settings


def test_jobs_have_exactly_their_assets(tmp_path: Path) -> None:
    definitions = build_definitions(Shop(home=tmp_path, settings=demo_settings()))
    for name, assets in JOB_ASSETS.items():
        job = definitions.resolve_job_def(name)
        assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(assets)
        assert job.description
