"""The tables between the nights: channels, and retention."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.channels import channel_rows, operating_points, publish_channels
from multitron_core.lake.housekeeping import DeletedFiles, Housekeeping, apply_retention, delete_night_files
from multitron_core.lake.lake import Lake
from multitron_core.preference.operating_point import record_operating_point
from orchestration.shop import models
from orchestration.shop.calendar import open_nights
from orchestration.shop.deployed import live_model, live_vocabulary
from orchestration.shop.home import Shop


@dataclass(frozen=True, eq=False)
class UpdatedChannels:
    """The table `channels` after an update.

    Args:
        rows: the rows of the table, and `on_grid`, see `multitron_core.lake.channels.publish_channels`.
        operating_points: one row per channel with an objective: the point of the front that was chosen; may be empty.
        delta_version: of the table.
    """

    rows: pl.DataFrame
    operating_points: pl.DataFrame
    delta_version: int


def update_channels(shop: Shop) -> UpdatedChannels:
    """Write [channels] of the shop's settings to the table `channels`.

    Objectives choose their preference on the live model's front; the choice is recorded in the model's folder,
    operating_points.json.

    Raises:
        InputError: a channel needs a preference that is not published, or an objective that the front does not have; no
            channel changes.
    """
    lake = shop.lake()
    lake.create(live_vocabulary(shop).item_ids.dtype)
    channels = shop.settings.declared_channels
    folder = models.folder_of(shop, live_model(shop).model_version)
    front = _front_of_grid(folder)
    _require_published(lake, channel_rows(channels, front))
    rows = publish_channels(lake, channels, front=front, grid=shop.settings.preferences)
    version, chosen = models.model_version(folder), []
    for name, point in operating_points(channels, front).items():
        record_operating_point(point, folder, name=name, model_version=version)
        chosen.append({"channel": name, **dataclasses.asdict(point), "model_version": version})
    return UpdatedChannels(rows, pl.DataFrame(chosen), lake.version("channels"))


def _front_of_grid(folder: Path) -> pl.DataFrame | None:
    """The model's front at the preferences that nights score; None if it was not measured."""
    path = folder / "grid.parquet"
    return pl.read_parquet(path) if path.exists() else None


def _require_published(lake: Lake, channels: pl.DataFrame) -> None:
    """Refuse channels whose readers would find no rows.

    Raises:
        InputError: with the names of these channels.
    """
    published = lake.publications().select("table_name", "pi").unique()
    missing = channels.join(published, on=["table_name", "pi"], how="anti")
    if len(missing):
        raise InputError(
            "channels need preferences that are not published",
            where=lake.uri("published"),
            found={row["name"]: f"{row['table_name']} at pi {row['pi']}" for row in missing.iter_rows(named=True)},
            hint="run the job `scoring` for the latest night and that pi (reload the code location if the pi is new), "
            "then materialize `channels`; until then no channel changes",
        )


@dataclass(frozen=True)
class AppliedRetention:
    """What retention deleted, and the state of the tables after it.

    Args:
        keep_days: nights older than this were deleted.
        tables: one report per table.
        local: what was deleted in the shop's home.
    """

    keep_days: int
    tables: tuple[Housekeeping, ...]
    local: DeletedFiles


def apply_shop_retention(shop: Shop, now: dt.datetime) -> AppliedRetention:
    """Delete what `keep_days` of [tables] allows: old nights in the tables, and their files in the home.

    Args:
        shop: the shop.
        now: a time with a time zone; it decides which nights are open.
    """
    lake, days = shop.lake(), shop.settings.tables.keep_days
    reports = apply_retention(lake, days=days)
    # Published nights may be scored again, and the sensor prepares an open night only once.
    kept = {*lake.publications()["run_date"], *open_nights(shop, now)}
    return AppliedRetention(days, tuple(reports), delete_night_files(shop.night_folders, days=days, kept=kept))
