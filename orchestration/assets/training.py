"""The event log to a trained model and its front."""

import dagster as dg
import polars as pl

from multitron_core.front.monotonicity import monotonicity, reversing_losses
from orchestration.assets.session_checks import add_up, add_up_spec
from orchestration.lifecycle.model import (
    MeasuredFront,
    measure_model,
    prepare_training,
    preset_of,
    report_on,
    train_model,
)
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown, column_schema, counts, picture
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop import models

GROUP = "training"
BEATS_BASELINE = "beats_baseline"
FOLLOWS_PREFERENCE = "follows_preference"
SCORED_RANKS_TRAINED = "scored_ranks_trained"
FRONT_COLUMNS = {
    "pi_order": "weight on orders",
    "pi_click": "weight on clicks",
    "click_loss": "L_c, nats a step: how well the next click is predicted",
    "order_loss": "L_o, nats a step: how well ordered items are told from others",
    "click_recall_20": "share of next clicks among the 20 best items, whole catalogue",
    "click_mrr_20": "mean of 1 / rank of the next click, 0 beyond rank 20",
    "last_click_recall_20": "click_recall_20 of each session's last click only",
    "last_click_mrr_20": "click_mrr_20 of each session's last click only",
    "order_recall_20": "share of next clicks that end in an order among the 20 best",
    "order_density": "share of the clicks found among the 20 best that end in an order",
    "recall_x_density": "click_recall_20 times order_density",
    "dominated": "another preference is at least as good in both losses and better in one",
    "steps": "next clicks that were measured",
    "ordered_steps": "of these, clicks on items that were ordered",
}


def training_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `training`; none has partitions: a model is trained on every ingested day."""

    @dg.asset(
        deps=[dg.AssetDep("events", partition_mapping=dg.AllPartitionMapping())],
        group_name=GROUP,
        kinds={"polars", "numpy"},
        check_specs=[add_up_spec("training_sessions")],
        op_tags=on_queue("ingestion"),
        description="Sessions of all ingested days, split by time into train and test, as indices of a vocabulary.",
    )
    def training_sessions(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        with failures(context):
            prepared = prepare_training(here)
        return dg.MaterializeResult(
            check_results=[add_up(prepared.statistics)],
            metadata={
                "dagster/row_count": len(prepared.train),
                "dagster/uri": str(here.training_sessions),
                "dagster/column_schema": column_schema(prepared.train.to_frame().head(0)),
                "statistics": counts(prepared.statistics),
                "items": len(prepared.vocabulary),
                "vocabulary hash": prepared.vocabulary.hash,
            },
        )

    @dg.asset(
        deps=[training_sessions],
        group_name=GROUP,
        kinds={"pytorch"},
        pool="gpu",
        op_tags=on_queue("gpu"),
        description=(
            "ONE MultiTRON model, trained on sampled preferences pi, so that it answers every trade-off between clicks "
            "and orders. Training the same data with the same settings again gives the folder that is there."
        ),
    )
    def model(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        from multitron_core.front.plots import training_curves  # only who draws waits for matplotlib

        here = shop.load()
        rows: list[dict[str, float]] = []

        def log_epoch(row: dict[str, float]) -> None:
            """An observation an epoch: while training runs, the asset's page plots its numbers and shows the curves."""
            rows.append(row)
            context.log.info("epoch %d: %s", row["epoch"], {name: round(value, 4) for name, value in row.items()})
            curves = picture(training_curves(pl.DataFrame(rows)), "losses by epoch")
            context.log_event(dg.AssetObservation(context.asset_key, metadata={**row, "curves": curves}))

        with failures(context):
            folder = train_model(here, on_epoch=log_epoch)
        metrics = pl.read_parquet(folder / "metrics.parquet")
        return dg.MaterializeResult(
            metadata={
                "dagster/uri": str(folder),
                "model version": models.model_version(folder),
                "preset": preset_of(here.settings).name,
                "curves": picture(training_curves(metrics), "losses by epoch"),
                "epochs": as_markdown(metrics),
            }
        )

    @dg.asset(
        deps=[model],
        group_name=GROUP,
        kinds={"pytorch", "matplotlib", "deltalake"},
        pool="gpu",
        op_tags=on_queue("gpu"),
        description=(
            "The trade-off that the model learned: preferences with losses and exact full-catalogue "
            "metrics on the test sessions, dominated points marked. A row each in the Delta table `fronts`."
        ),
        check_specs=[
            dg.AssetCheckSpec(
                BEATS_BASELINE,
                asset="front",
                description="The front's best click recall@20 is above that of gate_baseline of [model], co-visitation "
                "where nothing else is said. A model below is not deployed; it gets its report all the same.",
            ),
            dg.AssetCheckSpec(
                FOLLOWS_PREFERENCE,
                asset="front",
                description="Over the points that no other dominates, the click loss rises and the order loss falls "
                "with the weight on orders, and neither falls back by more than a tenth of its range.",
            ),
            dg.AssetCheckSpec(
                SCORED_RANKS_TRAINED,
                asset="front",
                description="Training trained the ranks at every preference that nights score. With the paper's order "
                "loss, bce, it does not at 1.00: lists there mean little.",
            ),
        ],
    )
    def front(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here, lake = shop.load(), shop.lake()
        with failures(context):
            measured = measure_model(here, models.newest(here))
        table, volume = measured.table, measured.volume
        losses, metrics = ((measured.folder / name).read_bytes() for name in ("front.png", "front_metrics.png"))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": table.height,
                "dagster/column_schema": column_schema(table, FRONT_COLUMNS),
                "dagster/uri": lake.uri("fronts"),
                "front": picture(losses, "click loss against order loss, coloured by the weight on orders"),
                "metrics": picture(metrics, "metrics against the weight on orders"),
                "model version": measured.model_version,
                "made by": dg.MetadataValue.asset(dg.AssetKey("model")),
                "delta version": measured.delta_version,
                "table": as_markdown(table),
                "scored preferences": as_markdown(measured.grid),
                "hypervolume, normalised": str(volume.normalised),
                "hypervolume, raw": f"{volume.raw}, reference {volume.reference}",
                "picture": str(measured.folder / "front.png"),
            },
            check_results=front_checks(measured),
        )

    @dg.asset(
        deps=[front],
        group_name=GROUP,
        kinds={"pytorch", "html"},
        pool="gpu",
        op_tags=on_queue("gpu"),
        description=(
            "One HTML file for people: the front beside the paper's, metrics against the preference and the baselines, "
            "what the chosen operating point rests on, training curves, lists of real sessions, the data, the settings."
        ),
    )
    def report(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        with failures(context):
            folder = models.newest(here)
            path = report_on(here, folder, progress=context.log.info)
        baselines = pl.read_parquet(folder / "baselines.parquet")
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(str(path)),
                "model version": models.model_version(folder),
                "bytes": path.stat().st_size,
                "baselines": as_markdown(baselines),
            }
        )

    return [training_sessions, model, front, report]


def front_checks(measured: MeasuredFront) -> list[dg.AssetCheckResult]:
    """What a front must show: BEATS_BASELINE, without which nothing is deployed, and two warnings."""
    table = measured.table
    best = float(table.filter("ranks_trained")["click_recall_20"].max() or 0.0)  # type: ignore[arg-type]
    astray = reversing_losses(table)
    untrained = measured.grid.filter(~pl.col("ranks_trained"))["pi_order"].to_list()
    return [
        dg.AssetCheckResult(
            check_name=BEATS_BASELINE,
            passed=best > measured.asked_recall,
            metadata={"click recall@20": best, "asked": measured.asked_recall},
        ),
        dg.AssetCheckResult(
            check_name=FOLLOWS_PREFERENCE,
            passed=astray.is_empty(),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "fall back": as_markdown(astray),
                "all points": as_markdown(monotonicity(table)),
                "hint": "train longer, or choose no preference between points that turn back",
            },
        ),
        dg.AssetCheckResult(
            check_name=SCORED_RANKS_TRAINED,
            passed=not untrained,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "scored, not trained": ", ".join(f"{pi:.2f}" for pi in untrained) or "none",
                "hint": "take these out of pi of [scoring], or train with an order_loss that ranks",
            },
        ),
    ]
