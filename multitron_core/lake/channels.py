"""Channels: who uses the tables, and how. A newsletter, a home page, a product page: each reads one table at one pi.

    [newsletter]
    owner = "crm@example.com"
    pi = "0.50"
    k = 10
    exclude_items = [4711]

    [product_page]
    owner = "shop@example.com"
    table = "item_recommendations"
    objective = "order_density"         # instead of pi: the best of it on the front ...
    max_click_recall_loss = 0.02        # ... that gives up at most so much click recall

Changing a channel's pi needs no training, and no scoring when the pi is on the grid that is scored every night.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from multitron_core.errors import InputError
from multitron_core.lake.contracts import CHANNELS, contracts
from multitron_core.preference.keys import pi_key
from multitron_core.preference.operating_point import OperatingPoint, choose_operating_point

if TYPE_CHECKING:
    from multitron_core.lake.lake import Lake

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Channel:
    """One use of the tables; either `pi` or `objective` is set.

    Args:
        name: lower case letters, digits and underscores.
        owner: whom to ask or to warn.
        table: the table of ranked lists that it reads.
        pi: the preference's key.
        objective: a column of the front to optimise, which chooses the pi; see `choose_operating_point`.
        max_click_recall_loss: click recall that may be given up for the objective.
        k: items a list.
        exclude_items: items that this channel must not show; the next ones of the list move up.
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
        tables = [table for table, contract in contracts(pl.Int64).items() if contract.list_key]
        if not _NAME.fullmatch(self.name):
            self._refuse("name", "use lower case letters, digits and underscores")
        if not isinstance(self.owner, str) or not self.owner:
            self._refuse("owner", "name whom to ask, for example an address")
        if self.table not in tables:
            self._refuse("table", f"use one of {', '.join(tables)}")
        if (self.pi is None) == (self.objective is None):
            self._refuse("pi", "give either pi or objective")
        if self.pi is not None:
            pi_key(self.pi)
        if not isinstance(self.k, int) or self.k < 1:
            self._refuse("k", "use 1 or more")
        if not 0 <= self.max_click_recall_loss <= 1:
            self._refuse("max_click_recall_loss", "use a value between 0 and 1")

    def _refuse(self, setting: str, hint: str) -> None:
        raise InputError(
            "a channel's setting is wrong",
            where=f"channel {self.name}, {setting}",
            found=getattr(self, setting),
            hint=hint,
        )


def parse_channels(settings: Mapping[str, Mapping[str, Any]]) -> tuple[Channel, ...]:
    """Channels from settings, name -> settings of `Channel`.

    Raises:
        InputError: a setting that channels do not have, one that is missing or out of range.
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
                hint=f"the settings are {', '.join(sorted(known))}; owner must be there",
            )
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        channels.append(Channel(name=name, **given))
    return tuple(channels)


def load_channels(path: Path | str) -> tuple[Channel, ...]:
    """Channels from a TOML file with a section a channel.

    Raises:
        InputError: no such file, not TOML, or a wrong setting.
    """
    try:
        settings = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError("channels cannot be read", where=path, found=str(error), hint="write a TOML file") from error
    return parse_channels(settings)


def channel_rows(channels: Collection[Channel], front: pl.DataFrame | None = None) -> pl.DataFrame:
    """The rows of the table `channels`, with the preference that each objective chooses; arguments and errors as in
    `publish_channels`.
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
        raise InputError("two channels have the same name", found=names, hint="name each channel once")
    return pl.DataFrame(rows, schema=contracts(pl.Int64)[CHANNELS].polars_schema())


def publish_channels(
    lake: Lake, channels: Collection[Channel], *, front: pl.DataFrame | None = None, grid: Collection[str] = ()
) -> pl.DataFrame:
    """Make the channels what readers find: replaces the table `channels` in one commit.

    Args:
        lake: the lake.
        channels: all of them; one that is left out is gone.
        front: what `evaluate_front` gave for the deployed model; needed where a channel has an objective.
        grid: the preferences that are scored every night.

    Returns:
        The rows of the table and `on_grid`: false where the channel's preference has to be scored first.

    Raises:
        InputError: an objective without a front, or one that the front does not have.
    """
    frame = channel_rows(channels, front)
    lake.replace_rows(CHANNELS, frame)
    return frame.with_columns(on_grid=pl.col("pi").is_in(list(grid)))


def operating_points(channels: Collection[Channel], front: pl.DataFrame | None) -> dict[str, OperatingPoint]:
    """What the channels that name an objective get from a front, by their names; errors as in `publish_channels`."""
    points = {}
    for channel in channels:
        if channel.objective is None:
            continue
        if front is None:
            raise InputError(
                "a channel's objective needs a front",
                where=f"channel {channel.name}",
                found=channel.objective,
                hint="evaluate the front of the deployed model first, or give the channel a pi",
            )
        points[channel.name] = choose_operating_point(front, channel.objective, channel.max_click_recall_loss)
    return points


def read_channel(lake: Lake, name: str) -> dict[str, Any]:
    """A channel as it is published: the row of the table `channels`, `exclude_items` as a list of texts.

    Raises:
        InputError: no such channel; names those that exist.
    """
    channels = pl.scan_delta(lake.open(CHANNELS)).collect()
    row = channels.filter(name=name)
    if row.is_empty():
        raise InputError(
            "there is no such channel",
            where=lake.uri(CHANNELS),
            found=name,
            hint=f"published are {', '.join(channels['name'].sort().to_list()) or 'none'}",
        )
    found = row.row(0, named=True)
    return {**found, "exclude_items": json.loads(found["exclude_items"])}


def as_shown(lists: pl.DataFrame, key: str, *, k: int, exclude_items: Collection[str]) -> pl.DataFrame:
    """The lists as a channel shows them: without the excluded items, ranks closed up, the first k.

    Args:
        lists: rows of a table of ranked lists, sorted by `key`, then rank.
        key: the column that names a list.
        k: items a list; a list is shorter where exclusions leave fewer.
        exclude_items: item ids as texts.
    """
    kept = lists.filter(~pl.col("item_id").cast(pl.String).is_in(list(exclude_items)))
    return kept.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int16).over(key).alias("rank")).filter(
        pl.col("rank") <= k
    )
