from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.pages import HOW_TO_READ
from orchestration.code_location import build_definitions
from orchestration.shop.home import Shop
from orchestration.shop.settings import Settings, demo_settings


def specs(home: Path, **sections: object) -> dict[str, dg.AssetSpec]:
    settings = Settings.model_validate({**demo_settings().model_dump(), **sections})
    definitions = build_definitions(Shop(home=home, settings=settings))
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def link(spec: dg.AssetSpec) -> Any:
    return spec.metadata["dagster/code_references"].code_references[0]


def test_with_pages_adds_owner_link_and_snippet(tmp_path: Path) -> None:
    found = specs(tmp_path, owners={"training": "science@example.com"})
    assert found["model"].owners == ["science@example.com"]
    for name, spec in found.items():
        assert spec.owners, name
        assert spec.description, name
        assert spec.kinds, name
        assert isinstance(link(spec), dg.LocalFileCodeReference), name
        python = spec.metadata[HOW_TO_READ].value.split("```python\n")[1].split("```")[0]
        imports: list[ast.stmt] = [
            node for node in ast.parse(python).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        exec(compile(ast.Module(imports, []), name, "exec"), {})  # the names of the snippet exist


def test_with_pages_links_to_the_repository_of_the_settings(tmp_path: Path) -> None:
    code = {"repository": "https://git.example.com/shop/multitron/", "platform": "gitlab", "revision": "v1"}
    url = link(specs(tmp_path, code=code)["front"]).url
    assert url.startswith("https://git.example.com/shop/multitron/-/tree/v1/orchestration/assets/training.py#L")
