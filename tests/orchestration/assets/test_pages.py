"""What every asset's page says: an owner, a link to the code, a snippet that reads it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from multitron_core.errors import InputError
from orchestration.assets.pages import HOW_TO_READ
from orchestration.code_location import build_definitions
from orchestration.runtime.executors import executor
from orchestration.shop.home import Shop
from orchestration.shop.settings import CodeSettings, OwnerSettings, Settings, demo_settings


def specs(home: Path, **sections) -> dict[str, dg.AssetSpec]:
    settings = Settings.model_validate({**demo_settings().model_dump(), **sections})
    definitions = build_definitions(Shop(home=home, settings=settings))
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def link(spec: dg.AssetSpec) -> object:
    return spec.metadata["dagster/code_references"].code_references[0]


def test_every_page_has_an_owner_a_link_and_a_snippet(tmp_path: Path) -> None:
    found = specs(tmp_path, owners={"training": "science@example.com"})
    assert found["model"].owners == ["science@example.com"]
    for name, spec in found.items():
        assert spec.owners, name
        assert spec.description, name
        assert spec.kinds, name
        assert isinstance(link(spec), dg.LocalFileCodeReference), name
        python = spec.metadata[HOW_TO_READ].value.split("```python\n")[1].split("```")[0]
        compile(python, name, "exec")


def test_links_lead_to_the_public_repository_where_there_is_one(tmp_path: Path) -> None:
    code = {"repository": "https://git.example.com/shop/multitron/", "platform": "gitlab", "revision": "v1"}
    url = link(specs(tmp_path, code=code)["front"]).url  # type: ignore[attr-defined]
    assert url.startswith("https://git.example.com/shop/multitron/-/tree/v1/orchestration/assets/training.py#L")


def test_an_owner_is_an_address_or_a_team() -> None:
    assert OwnerSettings(scoring="team:night shift").of("scoring") == "team:night shift"
    with pytest.raises(ValidationError, match="team:<name>"):
        OwnerSettings(scoring="night shift")
    assert CodeSettings().repository is None


def test_an_unknown_executor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_EXECUTOR", "slurm")
    with pytest.raises(InputError, match="slurm"):
        executor()
