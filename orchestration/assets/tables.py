"""What keeps the tables useful between the nights: the channels that read them, and housekeeping."""

import dataclasses
import datetime as dt
from pathlib import Path

import dagster as dg
import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.channels import channel_rows, operating_points, publish_channels
from multitron_core.lake.housekeeping import Housekeeping, apply_retention, delete_night_files
from multitron_core.lake.lake import Lake
from multitron_core.preference.operating_point import record_operating_point
from orchestration.runtime.executors import on_queue
from orchestration.runtime.metadata import as_markdown
from orchestration.runtime.resources import ShopResource
from orchestration.runtime.retries import failures
from orchestration.shop import models
from orchestration.shop.calendar import open_nights
from orchestration.shop.deployed import live_model, live_vocabulary
from orchestration.shop.home import Shop

GROUP = "tables"


def table_assets() -> list[dg.AssetsDefinition]:
    """The assets of the group `tables`; none has partitions."""

    @dg.asset(
        deps=[dg.AssetDep("night", partition_mapping=dg.AllPartitionMapping()), "front"],
        group_name=GROUP,
        kinds={"deltalake"},
        op_tags=on_queue("scoring"),
        description=(
            "Who reads which table at which preference, from [channels] of shop.toml; what an objective chose is "
            "recorded in the live model's folder, operating_points.json. A channel moves to another "
            "published preference by this asset alone; while one asks for a preference that is not published, all "
            "channels stay as they are."
        ),
    )
    def channels(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here, lake = shop.load(), shop.lake()
        with failures(context):
            lake.create(live_vocabulary(here).item_ids.dtype)
            declared, folder = here.settings.declared_channels, _live_folder(here)
            front = _scored_front(folder)
            _require_published(lake, channel_rows(declared, front))
            rows = publish_channels(lake, declared, front=front, grid=here.settings.preferences)
            version, chosen = models.model_version(folder), []
            for name, point in operating_points(declared, front).items():
                record_operating_point(point, folder, name=name, model_version=version)
                chosen.append({"channel": name, **dataclasses.asdict(point), "model_version": version})
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows.height,
                "dagster/uri": lake.uri("channels"),
                "channels": as_markdown(rows),
                "operating points": as_markdown(pl.DataFrame(chosen)) if chosen else "none",
                "delta version": lake.version("channels"),
            }
        )

    @dg.asset(
        deps=[dg.AssetDep("published", partition_mapping=dg.AllPartitionMapping())],
        group_name=GROUP,
        kinds={"deltalake"},
        op_tags=on_queue("scoring"),
        check_specs=[
            dg.AssetCheckSpec(
                "publications_readable",
                asset="housekeeping",
                description="Every row of `published` can still be read as it was published.",
            )
        ],
        description=(
            "Retention: nights older than keep_days of shop.toml go, then the files that no reader can need, then a "
            "checkpoint. The latest published night of a preference always stays. What nights that are gone were made "
            "from, in sessions/ of the home, goes a week after it was last written. Sizes and ages are in the metadata."
        ),
    )
    def housekeeping(context: dg.AssetExecutionContext, shop: ShopResource) -> dg.MaterializeResult:
        here, lake = shop.load(), shop.lake()
        with failures(context):
            days = here.settings.tables.keep_days
            reports = apply_retention(lake, days=days)
            # What is published may be scored again, and what is still made up for would not be prepared a second time.
            kept = {*lake.publications()["run_date"], *open_nights(here, dt.datetime.now(dt.UTC))}
            local = delete_night_files(here.night_folders, days=days, kept=kept)
        gone = [f"{report.table} {day} {pi}" for report in reports for day, pi in report.unreadable]
        return dg.MaterializeResult(
            metadata={
                "tables": as_markdown(pl.DataFrame([_row(report) for report in reports])),
                "keep days": days,
                # Numbers of their own, so that Dagster plots them over time.
                "bytes": sum(report.bytes for report in reports),
                "files": sum(report.files for report in reports),
                "small files": sum(report.small_files for report in reports),
                "rows": sum(report.rows for report in reports),
                "nights": max((report.nights for report in reports), default=0),
                "deleted nights": len({night for report in reports for night in report.deleted_nights}),
                "vacuumed files": sum(report.vacuumed_files for report in reports),
                "deleted local nights": len(local.nights),
                "deleted local bytes": local.bytes,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="publications_readable",
                    passed=not gone,
                    metadata={"gone": gone, "hint": "materialize `published` of these" if gone else "none"},
                )
            ],
        )

    return [channels, housekeeping]


def _live_folder(shop: Shop) -> Path:
    return models.folder_of(shop, live_model(shop).model_version)


def _scored_front(folder: Path) -> pl.DataFrame | None:
    """The live model's front at the preferences that nights score, from which objectives choose; None without one."""
    path = folder / "grid.parquet"
    return pl.read_parquet(path) if path.exists() else None


def _require_published(lake: Lake, channels: pl.DataFrame) -> None:
    """Refuse channels whose readers would find nothing.

    Raises:
        InputError: naming them.
    """
    there = lake.publications().select("table_name", "pi").unique()
    missing = channels.join(there, on=["table_name", "pi"], how="anti")
    if len(missing):
        raise InputError(
            "channels ask for preferences that are not published",
            where=lake.uri("published"),
            found={row["name"]: f"{row['table_name']} at pi {row['pi']}" for row in missing.iter_rows(named=True)},
            hint="run the job `scoring` for the latest night and that pi (reload the code location where the pi is "
            "new), then materialize `channels`; until then all channels stay as they are",
        )


def _row(report: Housekeeping) -> dict[str, object]:
    """A report as a row of a table, dates as text."""
    return {
        name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in dataclasses.asdict(report).items()
    }
