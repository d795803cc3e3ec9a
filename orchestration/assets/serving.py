"""A trained model to a deployed version."""

import dataclasses

import dagster as dg

from multitron_core.baselines import evaluate_baselines, popularity
from multitron_core.errors import InputError
from multitron_core.sessions import PreparedSessions
from orchestration import models
from orchestration.metadata import counts
from orchestration.resources import ShopResource
from orchestration.retries import failures
from serving.deployment import deploy
from serving.in_process import InProcessServer
from serving.quality import better_than, no_worse_than_live
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
            "The version that answers. A new one is loaded beside the live one and asked golden questions. It is "
            "promoted when its lists equal the in-process scorer's, it beats popularity, and its front is not worse "
            "than the live one's by more than a tolerance; else the old version stays live and the reason is here."
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
            deployment = deploy(
                folder,
                server,
                golden_sessions=prepared.test,
                golden_pi=here.settings.preferences,
                gates=[
                    better_than({"click_recall_20": popularity_recall(prepared)}, name="popularity"),
                    no_worse_than_live(tolerance=here.settings.model.gate_tolerance),
                ],
            )
        return dg.MaterializeResult(metadata={"live": counts(dataclasses.asdict(deployment)), "changed": True})

    return [deployed_model]


def popularity_recall(prepared: PreparedSessions) -> float:
    """Click recall@20 of the most clicked items on the test sessions: the least that a model must beat."""
    measured = evaluate_baselines(prepared.train, prepared.test, baselines={"popularity": popularity(prepared.train)})
    return float(measured["click_recall_20"].item())


def _live(server: TritonServer | InProcessServer) -> LiveModel | None:
    """What the server answers with now; None when nothing is deployed there."""
    try:
        return server.live_model()
    except InputError:
        return None
