"""The permanent part of each asset's page: its owner, links to its code, and Python code that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from orchestration.shop.home import Shop

ROOT = Path(__file__).resolve().parents[2]
HOW_TO_READ = "how to read it"


def with_pages(assets: Sequence[dg.AssetsDefinition], shop: Shop) -> list[dg.AssetsDefinition]:
    """Add owners, links to the code and a snippet that reads the asset.

    Args:
        assets: all assets of the shop.
        shop: [owners] and [code] of its settings give owners and repository. Without a repository the links lead to
            files on this machine.
    """
    described = [asset.map_asset_specs(lambda spec: _described(spec, shop)) for asset in assets]
    linked = dg.with_source_code_references(described)
    code = shop.settings.code
    if code.repository is None:
        return list(linked)  # type: ignore[arg-type]
    return list(
        dg.link_code_references_to_git(
            linked,
            git_url=code.repository.rstrip("/"),
            git_branch=code.revision,
            platform=code.platform,
            file_path_mapping=dg.AnchorBasedFilePathMapping(
                local_file_anchor=ROOT, file_anchor_path_in_repository=code.folder
            ),
        )  # type: ignore[arg-type]
    )


def _described(spec: dg.AssetSpec, shop: Shop) -> dg.AssetSpec:
    owner = shop.settings.owners.of(spec.group_name or "")
    return spec.replace_attributes(
        owners=[owner],
        metadata={**spec.metadata, HOW_TO_READ: dg.MetadataValue.md(how_to_read(spec.key.to_user_string(), shop))},
    )


def how_to_read(asset: str, shop: Shop) -> str:
    """Markdown with Python code that reads an asset. The code runs unchanged on a machine that has the shop's files.

    Args:
        asset: the name of the asset.
        shop: the shop; the code contains the addresses of its tables and folders.
    """
    pi = shop.settings.preferences[len(shop.settings.preferences) // 2]
    opened = f'from multitron_core.lake import Lake\n\nlake = Lake("{shop.lake_root}")\n'
    table = f'{opened}rows = pl.scan_delta(lake.open("{asset}"))'
    snippets = {
        "events": f'import polars as pl\n{table}.filter(event_type="order").head(100).collect()',
        "training_sessions": (
            "from multitron_core.sessions import PreparedSessions\n\n"
            f'prepared = PreparedSessions.load("{shop.training_sessions}")\n'
            "rows = prepared.train.to_frame()"
        ),
        "model": (
            "from multitron_core.model import load_model\nfrom orchestration.shop import load_shop, models\n\n"
            f'folder = models.newest(load_shop("{shop.home}"))\nmodel = load_model(folder)'
        ),
        "front": (f'import polars as pl\n{opened}rows = pl.scan_delta(lake.open("fronts")).sort("pi_order").collect()'),
        "report": (
            "from orchestration.shop import load_shop, models\n\n"
            f'html = (models.newest(load_shop("{shop.home}")) / "report.html").read_text()'
        ),
        "deployed_model": (
            "from serving.repository import ModelRepository, live_model_of\n\n"
            f'live = live_model_of(ModelRepository("{shop.triton_repository}").read_config())'
        ),
        "scoring_sessions": (
            "from pathlib import Path\n\nfrom multitron_core.sessions import EncodedSessions\n\n"
            f'nights = sorted(Path("{shop.home}/sessions/scoring").iterdir())\n'
            "rows = EncodedSessions.load(nights[-1]).to_frame()"
        ),
        "live_front": (  # the page itself has the front of the day; the table has the front at training time
            f'import polars as pl\n{opened}rows = pl.scan_delta(lake.open("fronts")).sort("pi_order").collect()'
        ),
        "assortment": (
            "from pathlib import Path\n\nimport polars as pl\n\n"
            f'kept = sorted(Path("{shop.home}/sessions/assortment").glob("*.parquet"))\n'
            "items = pl.read_parquet(kept[-1]) if kept else None  # None: every item"
        ),
        "recommendations": f'{opened}lists = lake.read_recommendations("{pi}", run_date="latest")',
        "item_recommendations": (
            f'{opened}lists = lake.read_recommendations("{pi}", run_date="latest", table="item_recommendations")'
        ),
        "fallback_recommendations": (
            f'{opened}lists = lake.read_recommendations("{pi}", run_date="latest", table="fallback_recommendations")'
        ),
        "published": f'{opened}rows = lake.publications("recommendations")',
        "night": f'{opened}rows = lake.publications().sort("run_date", "table_name", "pi")',
        "channels": f"import polars as pl\n{table}.collect()",
        "housekeeping": f"{opened}rows = lake.partitions()",
    }
    # An asset without a table has its figures in the Dagster instance in DAGSTER_HOME.
    recorded = (
        "import dagster as dg\n\nwith dg.DagsterInstance.get() as instance:\n"
        f'    event = instance.get_latest_materialization_event(dg.AssetKey("{asset}"))\n'
        "figures = event.asset_materialization.metadata if event else {}"
    )
    snippet = snippets.get(asset, recorded)
    text = f"```python\n{snippet}\n```"
    if "://" in shop.lake_root and "lake" in snippet:
        text += "\nOptions of the object store come from the environment (AWS_REGION ...) or from `Lake(root, {...})`."
    if asset in ("recommendations", "item_recommendations", "fallback_recommendations"):
        return text + "\nThis reads the latest published night; docs/tables.md has snippets for other tools."
    return text
