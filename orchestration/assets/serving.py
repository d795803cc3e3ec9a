"""A trained model to a deployed version."""

import dataclasses

import dagster as dg

from orchestration import models
from orchestration.metadata import counts
from orchestration.resources import ShopResource
from orchestration.retries import failures
from orchestration.work import deploy_model

GROUP = "serving"


def serving_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `serving`."""

    @dg.asset(
        deps=["front"],
        group_name=GROUP,
        kinds={"triton", "pytorch"},
        pool="triton",
        description=(
            "The version that answers. A new one is loaded beside the live one and asked golden questions. It is "
            "promoted when its lists equal the in-process scorer's, it beats popularity, and its front is not worse "
            "than the live one's by more than a tolerance; else the old version stays live and the reason is here."
        ),
    )
    def deployed_model(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        with failures(context), shop.server() as server:
            folder = models.newest(here)
            deployment = deploy_model(here, folder, server)
            if deployment is None:
                live = counts(dataclasses.asdict(server.live_model()))
                return dg.MaterializeResult(metadata={"live": live, "changed": False})
        return dg.MaterializeResult(metadata={"live": counts(dataclasses.asdict(deployment)), "changed": True})

    return [deployed_model]
