"""The Dagster assets of a shop, one module per group, and what they share.

An asset reads its partition, calls one function of `orchestration.lifecycle`, and turns the result into metadata.
`orchestration.code_location` puts the groups together.
"""

from orchestration.assets.freshness import with_freshness
from orchestration.assets.ingestion import ingestion_assets
from orchestration.assets.monitoring import live_front_asset
from orchestration.assets.pages import with_pages
from orchestration.assets.publication import publication_assets
from orchestration.assets.scoring import scoring_assets
from orchestration.assets.serving import rollback_job, serving_assets
from orchestration.assets.tables import table_assets
from orchestration.assets.training import training_assets

__all__ = [
    "ingestion_assets",
    "live_front_asset",
    "publication_assets",
    "rollback_job",
    "scoring_assets",
    "serving_assets",
    "table_assets",
    "training_assets",
    "with_freshness",
    "with_pages",
]
