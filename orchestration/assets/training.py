"""The event log to a trained model and its front."""

import dagster as dg
import polars as pl

from multitron_core import pictures, preset
from multitron_core.event_log import read_event_log
from multitron_core.front import front_table, front_volume, spaced_preferences
from multitron_core.front_measurement import measure_front
from multitron_core.model import load_model
from multitron_core.model_folder import fingerprint
from multitron_core.preset import Preset
from multitron_core.sessions import PreparedSessions, prepare_sessions
from multitron_core.training import train
from orchestration import models
from orchestration.assets.ingestion import session_gap
from orchestration.metadata import as_markdown, column_schema, counts, picture
from orchestration.resources import ShopResource
from orchestration.retries import failures
from orchestration.shop import Settings

GROUP = "training"
FRONT_POINTS = 26


def preset_of(settings: Settings) -> Preset:
    """The preset of a shop, with what its settings change."""
    return preset.named(settings.model.preset).changed(training=settings.model.training)


def training_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `training`; none has partitions: a model is trained on every ingested day."""

    @dg.asset(
        deps=[dg.AssetDep("events", partition_mapping=dg.AllPartitionMapping())],
        group_name=GROUP,
        kinds={"polars", "numpy"},
        description="Sessions of all ingested days, split by time into train and test, as indices of a vocabulary.",
    )
    def training_sessions(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        settings = here.settings
        with failures(context):
            prepared = prepare_sessions(
                read_event_log(shop.lake()),
                settings.source.format,
                split_days=settings.sessions.split_days,
                session_gap=session_gap(here),
            )
            prepared.save(here.training_sessions)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(prepared.train),
                "dagster/uri": str(here.training_sessions),
                "dagster/column_schema": column_schema(prepared.train.to_frame().head(0)),
                "statistics": counts(prepared.statistics),
                "items": len(prepared.vocabulary),
                "vocabulary hash": prepared.vocabulary.hash,
            }
        )

    @dg.asset(
        deps=[training_sessions],
        group_name=GROUP,
        kinds={"pytorch"},
        pool="gpu",
        description=(
            "ONE MultiTRON model, trained on sampled preferences pi, so that it answers every trade-off between clicks "
            "and orders. Training the same data with the same settings again gives the folder that is there."
        ),
    )
    def model(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here = shop.load()
        with failures(context):
            prepared = PreparedSessions.load(here.training_sessions)
            settings = preset_of(here.settings)
            folder = here.models / f"{settings.name}-{fingerprint(prepared, settings)}"

            def log_epoch(row: dict[str, float]) -> None:
                context.log.info("epoch %d: %s", row["epoch"], {name: round(value, 4) for name, value in row.items()})

            train(prepared, settings, folder, device=here.settings.model.device, on_epoch=log_epoch)
            models.set_newest(here, folder)
        metrics = pl.read_parquet(folder / "metrics.parquet")
        return dg.MaterializeResult(
            metadata={
                "dagster/uri": str(folder),
                "model version": models.model_version(folder),
                "preset": settings.name,
                "epochs": as_markdown(metrics),
                "curves": picture(pictures.training_curves(metrics), "losses by epoch"),
            }
        )

    @dg.asset(
        deps=[model],
        group_name=GROUP,
        kinds={"pytorch", "matplotlib", "deltalake"},
        pool="gpu",
        description=(
            f"The trade-off that the model learned: {FRONT_POINTS} preferences with losses and exact full-catalogue "
            "metrics on the test sessions, dominated points marked. A row each in the Delta table `fronts`."
        ),
    )
    def front(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here, lake = shop.load(), shop.lake()
        with failures(context):
            folder = models.newest(here)
            version = models.model_version(folder)
            trained, prepared = load_model(folder), PreparedSessions.load(here.training_sessions)
            config = preset_of(here.settings).training
            measured = measure_front(
                trained, prepared, spaced_preferences(FRONT_POINTS, beta=config.beta), config=config
            )
            table, volume = front_table(measured), front_volume(measured)
            table.write_parquet(folder / "front.parquet")
            image = pictures.front_picture(table)
            (folder / "front.png").write_bytes(image)
            grid = front_table(
                measure_front(trained, prepared, [float(pi) for pi in here.settings.preferences], config=config)
            )
            grid.write_parquet(folder / "grid.parquet")
            committed = lake.replace_rows("fronts", table, key={"model_version": version})
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": table.height,
                "dagster/column_schema": column_schema(table),
                "dagster/uri": lake.uri("fronts"),
                "delta version": committed.delta_version,
                "model version": version,
                "front": picture(image, "click loss against order loss, coloured by the weight on orders"),
                "metrics": picture(pictures.metrics_picture(table), "metrics against the weight on orders"),
                "table": as_markdown(table),
                "scored preferences": as_markdown(grid),
                "hypervolume, normalised": str(volume.normalised),
                "hypervolume, raw": f"{volume.raw}, reference {volume.reference}",
                "picture": str(folder / "front.png"),
            }
        )

    return [training_sessions, model, front]
