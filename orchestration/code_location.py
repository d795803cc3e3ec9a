"""The code location of a shop: its assets, checks, jobs, schedules, sensors and resources."""

from __future__ import annotations

import dagster as dg

from orchestration.assets.freshness import with_freshness
from orchestration.assets.ingestion import ingestion_assets
from orchestration.assets.monitoring import live_front_asset
from orchestration.assets.pages import with_pages
from orchestration.assets.publication import publication_assets
from orchestration.assets.scoring import scoring_assets
from orchestration.assets.serving import serving_assets
from orchestration.assets.tables import table_assets
from orchestration.assets.training import training_assets
from orchestration.automation.jobs import jobs
from orchestration.automation.schedules import schedules
from orchestration.automation.sensors import sensors
from orchestration.runtime.executors import executor
from orchestration.runtime.partitions import partitions_of
from orchestration.runtime.resources import ShopResource
from orchestration.shop.home import Shop


def build_definitions(shop: Shop) -> dg.Definitions:
    """The Dagster definitions of a shop; building them opens no table, no model and no connection."""
    partitions = partitions_of(shop.settings)
    publication, jobs_by_name = publication_assets(partitions), jobs()
    assets = [
        *ingestion_assets(partitions),
        *training_assets(),
        *serving_assets(),
        *scoring_assets(partitions),
        live_front_asset(partitions),
        *publication.assets,
        *table_assets(),
    ]
    return dg.Definitions(
        assets=with_pages(with_freshness(assets, shop.settings), shop),
        asset_checks=publication.checks,
        jobs=list(jobs_by_name.values()),
        schedules=schedules(jobs_by_name),
        sensors=sensors(jobs_by_name),
        executor=executor(),
        resources={"shop_resource": ShopResource(home=str(shop.home))},
    )
