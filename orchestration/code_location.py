"""The code location of a shop: its assets, checks, jobs, schedules and resources."""

from __future__ import annotations

import dagster as dg

from orchestration.assets.ingestion import ingestion_assets
from orchestration.assets.scoring import scoring
from orchestration.assets.serving import serving_assets
from orchestration.assets.training import training_assets
from orchestration.partitions import partitions_of
from orchestration.resources import ShopResource
from orchestration.schedules import jobs, schedules
from orchestration.shop import Shop


def build_definitions(shop: Shop) -> dg.Definitions:
    """The assets, checks, jobs and schedules of a shop.

    Loading them opens no table, no model and no connection.
    """
    partitions = partitions_of(shop.settings)
    scored, jobs_by_name = scoring(partitions), jobs(partitions)
    return dg.Definitions(
        assets=[*ingestion_assets(partitions), *training_assets(), *serving_assets(), *scored.assets],
        asset_checks=scored.checks,
        jobs=list(jobs_by_name.values()),
        schedules=schedules(shop.settings, jobs_by_name),
        resources={"shop": ShopResource(home=str(shop.home))},
    )
