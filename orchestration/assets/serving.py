"""Group `serving`: from a trained model to a deployed version, and the job that rolls back."""

import dataclasses

import dagster as dg

from orchestration import lifecycle
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import counts
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop import models

GROUP = "serving"
ROLLBACK, ROLLED_BACK = "rollback", "rolled_back_model"
"""The job that makes an earlier version live again, and its only op."""
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
            "The live version of the model. A new version is loaded next to it and scores golden sessions. It becomes "
            "live if its lists equal those of the in-process scorer, its click recall@20 exceeds that of "
            "gate_baseline, and its front is not worse than the live one by more than gate_tolerance of [model]. "
            "Otherwise the run fails with the reason, and the old version stays live."
        ),
    )
    def deployed_model(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop = shop_resource.load()
        with failures(context), shop_resource.server() as server:
            deployment = lifecycle.deploy_model(shop, models.newest(shop), server)
            if deployment is None:
                live = counts(dataclasses.asdict(server.live_model()))
                return dg.MaterializeResult(metadata={"live": live, "changed": False, "model": MODEL})
        return dg.MaterializeResult(
            metadata={"live": counts(dataclasses.asdict(deployment)), "changed": True, "model": MODEL}
        )

    return [deployed_model]


class Rollback(dg.Config):
    """The version to make live again.

    Args:
        version: its number in the Triton repository; None for the version before the last deployment.
    """

    version: int | None = None


@dg.op(
    name=ROLLED_BACK,
    pool="triton",
    description="Makes an earlier version live again, and records it as a materialization of `deployed_model`.",
)
def rolled_back_model(context: dg.OpExecutionContext, config: Rollback, shop_resource: ShopResource) -> None:
    """Make an earlier version live again."""
    from serving.deployment import rollback  # loads torch, which Dagster's definitions do not need

    with failures(context), shop_resource.server() as server:
        deployment = rollback(config.version, server)
    live = counts(dataclasses.asdict(deployment))
    context.log_event(
        dg.AssetMaterialization("deployed_model", metadata={"live": live, "triton version": deployment.version})
    )


def rollback_job() -> dg.JobDefinition:
    """The job `rollback`: back to the previous version, or to the version in the config of its op."""

    @dg.job(name=ROLLBACK, description="Makes an earlier version live again, by default the previous one.")
    def job() -> None:
        rolled_back_model()

    return job
