"""A trained model to a deployed version."""

import dataclasses

import dagster as dg

from orchestration.lifecycle.model import deploy_model
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import counts
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop import models
from serving.deployment import rollback

GROUP = "serving"
ROLLBACK, ROLLED_BACK = "rollback", "rolled_back_model"
"""The job that makes a kept version live again, and its only op."""
MODEL = dg.MetadataValue.asset(dg.AssetKey("model"))


def serving_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `serving`."""

    @dg.asset(
        deps=["front"],
        group_name=GROUP,
        kinds={"triton", "pytorch"},
        pool="triton",
        op_tags=on_queue("scoring"),
        description=(
            "The version that answers. A new one is loaded beside the live one and asked golden questions. It is "
            "promoted when its lists equal the in-process scorer's, it beats co-visitation, and its front is not worse "
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
                return dg.MaterializeResult(metadata={"live": live, "changed": False, "model": MODEL})
        return dg.MaterializeResult(
            metadata={"live": counts(dataclasses.asdict(deployment)), "changed": True, "model": MODEL}
        )

    return [deployed_model]


class Rollback(dg.Config):
    """Which version to make live again.

    Args:
        version: its number in the Triton repository; none for the one that was live before the last deployment.
    """

    version: int | None = None


@dg.op(
    name=ROLLED_BACK,
    pool="triton",
    description="A kept version becomes the one that answers. It is a materialization of `deployed_model` too.",
)
def rolled_back_model(context: dg.OpExecutionContext, config: Rollback, shop: ShopResource) -> None:
    """Make a kept version live again."""
    with failures(context), shop.server() as server:
        deployment = rollback(config.version, server)
    live = counts(dataclasses.asdict(deployment))
    context.log_event(
        dg.AssetMaterialization("deployed_model", metadata={"live": live, "triton version": deployment.version})
    )


def rollback_job() -> dg.JobDefinition:
    """The job `rollback`: back to the version before, or to any kept one, by the config of its op."""

    @dg.job(name=ROLLBACK, description="A kept version answers again; by default the one before the live one.")
    def job() -> None:
        rolled_back_model()

    return job
