"""Channels: the consumers of the tables, for example a newsletter or a product page, and what each one reads.

A channel reads one table at one pi. A TOML file declares the channels:

    [newsletter]
    owner = "crm@example.com"
    pi = "0.50"
    k = 10
    exclude_items = [4711]

    [product_page]
    owner = "shop@example.com"
    table = "item_recommendations"
    objective = "order_density"         # instead of pi: take the point of the front that is best in this column
    max_click_recall_loss = 0.02        # and loses at most this much click recall (absolute)

A new pi for a channel needs no training. It needs no scoring either if it is on the grid that is scored every night.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.contracts import CHANNELS, table_contracts
from multitron_core.lake.replace_where import replace_rows
from multitron_core.lake.tables import Tables
from multitron_core.preference.keys import pi_key
from multitron_core.preference.operating_point import OperatingPoint, choose_operating_point

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Channel:
    """One consumer of the tables. Exactly one of `pi` and `objective` is set.

    Args:
        name: Lower case letters, digits and underscores.
        owner: Contact for questions and warnings, for example an email address.
        table: Table of ranked lists that the channel reads.
        pi: Key of the preference.
        objective: Column of the front to optimise, which determines pi; see `choose_operating_point`.
        max_click_recall_loss: Largest loss of click recall that is accepted for the objective, absolute, in [0, 1].
        k: Maximum number of items per list.
        exclude_items: Items that the channel must not show; the following items of the list move up.
    """

    name: str
    owner: str
    table: str = "recommendations"
    pi: str | None = None
    objective: str | None = None
    max_click_recall_loss: float = 0.02
    k: int = 20
    exclude_items: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        tables = [table for table, contract in table_contracts(pl.Int64).items() if contract.list_key]
        if not _NAME.fullmatch(self.name):
            self._refuse("name", "use lower case letters, digits and underscores")
        if not isinstance(self.owner, str) or not self.owner:
            self._refuse("owner", "name a contact, for example an email address")
        if self.table not in tables:
            self._refuse("table", f"use one of {', '.join(tables)}")
        if (self.pi is None) == (self.objective is None):
            self._refuse("pi", "set either pi or objective")
        if self.pi is not None:
            pi_key(self.pi)
        if not isinstance(self.k, int) or self.k < 1:
            self._refuse("k", "use 1 or more")
        if not 0 <= self.max_click_recall_loss <= 1:
            self._refuse("max_click_recall_loss", "use a value between 0 and 1")

    def _refuse(self, setting: str, hint: str) -> None:
        raise InputError(
            "invalid setting of a channel",
            where=f"channel {self.name}, {setting}",
            found=getattr(self, setting),
            hint=hint,
        )


def parse_channels(settings: Mapping[str, Mapping[str, Any]]) -> tuple[Channel, ...]:
    """Create channels from settings.

    Args:
        settings: For each channel name the arguments of `Channel`.

    Raises:
        InputError: An unknown setting, a missing owner, or a value out of range.
    """
    known = {field.name for field in dataclasses.fields(Channel)} - {"name"}
    channels = []
    for name, values in settings.items():
        if not isinstance(values, Mapping):
            raise InputError("not a channel", where=name, found=values, hint=f"write a section [{name}]")
        unknown = sorted(set(values) - known)
        if unknown or "owner" not in values:
            raise InputError(
                "a channel's settings are unknown or missing",
                where=f"channel {name}",
                found=unknown or "no owner",
                hint=f"the settings are {', '.join(sorted(known))}; owner is required",
            )
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        channels.append(Channel(name=name, **given))
    return tuple(channels)


def load_channels(path: Path | str) -> tuple[Channel, ...]:
    """Read channels from a TOML file with one section per channel.

    Raises:
        InputError: The file is missing, is not TOML, or contains an invalid setting.
    """
    try:
        settings = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError("channels cannot be read", where=path, found=str(error), hint="write a TOML file") from error
    return parse_channels(settings)


def channel_rows(channels: Collection[Channel], front: pl.DataFrame | None = None) -> pl.DataFrame:
    """Rows of the table `channels`, with the preference that each objective selects on the front.

    Arguments and errors as in `publish_channels`.
    """
    points = operating_points(channels, front)
    rows = [
        {
            "name": channel.name,
            "owner": channel.owner,
            "table_name": channel.table,
            "pi": points[channel.name].pi_key if channel.pi is None else pi_key(channel.pi),
            "k": channel.k,
            "exclude_items": json.dumps([str(item) for item in channel.exclude_items]),
            "chosen_by": "pi" if channel.objective is None else channel.objective,
        }
        for channel in sorted(channels, key=lambda channel: channel.name)
    ]
    names = [row["name"] for row in rows]
    if len(set(names)) != len(names):
        raise InputError("two channels have the same name", found=names, hint="give each channel its own name")
    return pl.DataFrame(rows, schema=table_contracts(pl.Int64)[CHANNELS].polars_schema())


def publish_channels(
    tables: Tables, channels: Collection[Channel], *, front: pl.DataFrame | None = None, grid: Collection[str] = ()
) -> pl.DataFrame:
    """Replace the table `channels` in one commit.

    Args:
        tables: Where the tables are, for example a `Lake`.
        channels: All channels; a channel that is missing here is removed from the table.
        front: Result of `evaluate_front` for the deployed model; required if a channel has an objective.
        grid: Preferences that are scored every night.

    Returns:
        The rows of the table, with a column `on_grid`: false if the channel's preference must be scored first.

    Raises:
        InputError: A channel has an objective and there is no front, or the front lacks the objective.
    """
    frame = channel_rows(channels, front)
    replace_rows(tables, CHANNELS, frame)
    return frame.with_columns(on_grid=pl.col("pi").is_in(list(grid)))


def operating_points(channels: Collection[Channel], front: pl.DataFrame | None) -> dict[str, OperatingPoint]:
    """Operating points of the channels with an objective, by channel name; errors as in `publish_channels`."""
    points = {}
    for channel in channels:
        if channel.objective is None:
            continue
        if front is None:
            raise InputError(
                "a channel's objective needs a front",
                where=f"channel {channel.name}",
                found=channel.objective,
                hint="evaluate the front of the deployed model first, or set pi for the channel",
            )
        points[channel.name] = choose_operating_point(front, channel.objective, channel.max_click_recall_loss)
    return points


def read_channel(tables: Tables, name: str) -> dict[str, Any]:
    """Read the settings of a published channel.

    Returns:
        The row of the table `channels`, with `exclude_items` as a list of strings.

    Raises:
        InputError: The channel does not exist; the hint lists those that do.
    """
    channels = pl.scan_delta(tables.open(CHANNELS)).collect()
    row = channels.filter(name=name)
    if row.is_empty():
        raise InputError(
            "there is no such channel",
            where=tables.uri(CHANNELS),
            found=name,
            hint=f"published are {', '.join(channels['name'].sort().to_list()) or 'none'}",
        )
    found = row.row(0, named=True)
    return {**found, "exclude_items": json.loads(found["exclude_items"])}


def as_shown(lists: pl.DataFrame, key: str, *, k: int, exclude_items: Collection[str]) -> pl.DataFrame:
    """Apply the settings of a channel: remove excluded items, renumber the ranks, keep the first k.

    Args:
        lists: Rows of a table of ranked lists, sorted by `key`, then rank.
        key: Column that identifies a list.
        k: Maximum number of items per list; exclusions may leave fewer.
        exclude_items: Item ids as strings.
    """
    kept = lists.filter(~pl.col("item_id").cast(pl.String).is_in(list(exclude_items)))
    return kept.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int16).over(key).alias("rank")).filter(
        pl.col("rank") <= k
    )
