"""Group `training`: from the event log to a trained model, its front and its report."""

import dagster as dg
import polars as pl

from orchestration import lifecycle
from orchestration.assets.session_checks import check_counts, counts_check_spec
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
    "click_loss": "click loss L_c in nats per step: error of predicting the next click",
    "order_loss": "order loss L_o in nats per step: error of separating ordered items from others",
    "click_recall_20": "share of next clicks that are among the 20 best items of the whole catalogue",
    "click_mrr_20": "mean of 1 / rank of the next click; 0 beyond rank 20",
    "last_click_recall_20": "click_recall_20 on the last click of each session only",
    "last_click_mrr_20": "click_mrr_20 on the last click of each session only",
    "order_recall_20": "share of next clicks on ordered items that are among the 20 best items",
    "order_density": "share of the next clicks among the 20 best items that are on ordered items",
    "recall_x_density": "click_recall_20 times order_density",
    "dominated": "another preference is at least as good in both losses and better in one",
    "steps": "number of next clicks that were measured",
    "ordered_steps": "number of these clicks that are on ordered items",
}


def training_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `training`; they have no partitions: a model is trained on all ingested days."""

    @dg.asset(
        deps=[dg.AssetDep("events", partition_mapping=dg.AllPartitionMapping())],
        group_name=GROUP,
        kinds={"polars", "numpy"},
        check_specs=[counts_check_spec("training_sessions")],
        op_tags=on_queue("ingestion"),
        description="Sessions of all ingested days, split by time into train and test; items are vocabulary indices.",
    )
    def training_sessions(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop = shop_resource.load()
        with failures(context):
            prepared = lifecycle.prepare_training(shop)
        return dg.MaterializeResult(
            check_results=[check_counts(prepared.statistics)],
            metadata={
                "dagster/row_count": len(prepared.train),
                "dagster/uri": str(shop.training_sessions),
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
            "One MultiTRON model for all trade-offs between clicks and orders: the preference pi is an input, sampled "
            "during training. The same sessions and settings are trained once; a second run returns the same folder."
        ),
    )
    def model(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        from multitron_core.front.plots import training_curves  # here, so that loading the code needs no matplotlib

        shop = shop_resource.load()
        rows: list[dict[str, float]] = []

        def log_epoch(row: dict[str, float]) -> None:
            """Record one observation per epoch: the asset's page plots its numbers while training runs."""
            rows.append(row)
            context.log.info("epoch %d: %s", row["epoch"], {name: round(value, 4) for name, value in row.items()})
            curves = picture(training_curves(pl.DataFrame(rows)), "losses by epoch")
            context.log_event(dg.AssetObservation(context.asset_key, metadata={**row, "curves": curves}))

        with failures(context):
            folder = lifecycle.train_model(shop, on_epoch=log_epoch)
        metrics = pl.read_parquet(folder / "metrics.parquet")
        return dg.MaterializeResult(
            metadata={
                "dagster/uri": str(folder),
                "model version": models.model_version(folder),
                "preset": lifecycle.preset_of(shop.settings).name,
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
            "The trade-off between clicks and orders that the model learned: losses and full-catalogue metrics on the "
            "test sessions, one row per preference, with dominated points marked. In the Delta table `fronts`."
        ),
        check_specs=[
            dg.AssetCheckSpec(
                BEATS_BASELINE,
                asset="front",
                description="The best click recall@20 of the front exceeds that of gate_baseline of [model], by "
                "default co-visitation. A model that fails is not deployed; its report is still written.",
            ),
            dg.AssetCheckSpec(
                FOLLOWS_PREFERENCE,
                asset="front",
                description="Over the non-dominated points, the click loss rises and the order loss falls with the "
                "weight on orders; neither reverses by more than a tenth of its range.",
            ),
            dg.AssetCheckSpec(
                SCORED_RANKS_TRAINED,
                asset="front",
                description="Training optimises the ranks at every preference that is scored. With the paper's order "
                "loss, bce, it does not at 1.00: lists at that preference mean little.",
            ),
        ],
    )
    def front(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop = shop_resource.load()
        with failures(context):
            measured = lifecycle.measure_model(shop, models.newest(shop))
        table, volume = measured.table, measured.volume
        losses, metrics = ((measured.folder / name).read_bytes() for name in ("front.png", "front_metrics.png"))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": table.height,
                "dagster/column_schema": column_schema(table, FRONT_COLUMNS),
                "dagster/uri": shop.lake().uri("fronts"),
                "front": picture(losses, "click loss and order loss, coloured by the weight on orders"),
                "metrics": picture(metrics, "metrics by the weight on orders"),
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
            "One HTML file: the front and the paper's front, metrics by preference against the baselines, the chosen "
            "operating point and its reasons, training curves, example lists of test sessions, data and settings."
        ),
    )
    def report(context: dg.AssetExecutionContext, shop_resource: ShopResource) -> dg.MaterializeResult:
        shop = shop_resource.load()
        with failures(context):
            folder = models.newest(shop)
            path = lifecycle.report_on(shop, folder, progress=context.log.info)
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


def front_checks(measured: "lifecycle.MeasuredFront") -> list[dg.AssetCheckResult]:
    """The checks of a front: `BEATS_BASELINE`, which deployment requires, and two that only warn."""
    from multitron_core.front.monotonicity import monotonicity, reversing_losses  # loads torch

    table = measured.table
    best = float(table.filter("ranks_trained")["click_recall_20"].max() or 0.0)  # type: ignore[arg-type]
    reversing = reversing_losses(table)
    untrained = measured.grid.filter(~pl.col("ranks_trained"))["pi_order"].to_list()
    return [
        dg.AssetCheckResult(
            check_name=BEATS_BASELINE,
            passed=best > measured.required_recall,
            metadata={"best click recall@20": best, "click recall@20 of the baseline": measured.required_recall},
        ),
        dg.AssetCheckResult(
            check_name=FOLLOWS_PREFERENCE,
            passed=reversing.is_empty(),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "reversing losses": as_markdown(reversing),
                "all points": as_markdown(monotonicity(table)),
                "hint": "train longer, or use no preference between points where a loss reverses",
            },
        ),
        dg.AssetCheckResult(
            check_name=SCORED_RANKS_TRAINED,
            passed=not untrained,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "scored but not trained": ", ".join(f"{pi:.2f}" for pi in untrained) or "none",
                "hint": "remove these from pi of [scoring], or train with an order_loss that ranks",
            },
        ),
    ]
