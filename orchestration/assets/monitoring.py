"""Group `monitoring`: the front of the live model on a day's sessions, against its front at training time."""

import dataclasses
import datetime as dt

import dagster as dg

from orchestration import lifecycle
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.partitions import Partitions
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures

GROUP = "monitoring"
"""Separate from `serving`, which would otherwise form a cycle of groups with `scoring` in the asset graph."""

MODEL_VERSION, DECAYED = "model version", "decayed"
"""Metadata that the sensor `decayed_model` reads from recorded materializations: the texts must stay."""


def live_front_asset(partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `live_front`, over a shop's days."""

    @dg.asset(
        partitions_def=partitions.days,
        deps=["scoring_sessions", "deployed_model"],
        group_name=GROUP,
        kinds={"pytorch"},
        op_tags=on_queue("gpu"),
        check_specs=[
            dg.AssetCheckSpec(
                "front_holds",
                asset="live_front",
                description="The front of the live model on the day's sessions has lost at most max_decay of [model], "
                "relative to its front at training time. Beyond it the sensor `decayed_model` starts a training.",
            )
        ],
        description=(
            "The front of the live model on the sessions of one day, and its front at training time. If the day is "
            "new, the model has not been trained on these sessions."
        ),
    )
    def live_front(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop, day = shop_resource.load(), dt.date.fromisoformat(context.partition_key)
        with failures(context):
            front = lifecycle.measure_live_front(shop, day)
        figures = dataclasses.asdict(front.decay) if front.decay else {"sessions": 0, "lost": 0.0}
        return dg.MaterializeResult(
            metadata={
                MODEL_VERSION: front.model_version,
                DECAYED: front.decayed,
                **{name.replace("_", " "): value for name, value in figures.items()},
                "front on this day": as_markdown(front.measured),
                "front at training time": as_markdown(front.trained),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="front_holds",
                    passed=not front.decayed,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"max decay": shop.settings.model.max_decay, **figures},
                )
            ],
        )

    return live_front
