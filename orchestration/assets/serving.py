"""A trained model to a deployed version."""

import dataclasses

import dagster as dg

from multitron_core.errors import InputError
from multitron_core.sessions import PreparedSessions
from orchestration import models
from orchestration.metadata import counts
from orchestration.resources import ShopResource
from orchestration.retries import failures
from serving.deployment import deploy
from serving.in_process import InProcessServer
from serving.request import LiveModel
from serving.server import TritonServer

GROUP = "serving"


def serving_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `serving`."""

    @dg.asset(
        deps=["front"],
        group_name=GROUP,
        kinds={"triton", "pytorch"},
        pool="triton",
        description=(
            "The version that answers. The new version is loaded beside the live one and asked golden questions; only "
            "when its lists equal the in-process scorer's it is promoted, else the old version stays live."
        ),
    )
    def deployed_model(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        with failures(context), shop.server() as server:
            folder = models.newest(here)
            prepared = PreparedSessions.load(here.training_sessions)
            live = _live(server)
            if live is not None and live.model_version == models.model_version(folder):
                return dg.MaterializeResult(metadata={"live": counts(dataclasses.asdict(live)), "changed": False})
            deployment = deploy(folder, server, golden_sessions=prepared.test, golden_pi=here.settings.scoring.pi)
        return dg.MaterializeResult(metadata={"live": counts(dataclasses.asdict(deployment)), "changed": True})

    return [deployed_model]


def _live(server: TritonServer | InProcessServer) -> LiveModel | None:
    """What the server answers with now; None when nothing is deployed there."""
    try:
        return server.live_model()
    except InputError:
        return None
