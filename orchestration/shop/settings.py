"""The settings of a shop, as shop.toml has them, checked when they are loaded."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from multitron_core.errors import InputError
from multitron_core.events.formats import get_format
from multitron_core.events.ingestion_checks import Limits
from multitron_core.events.raw_source import LATE_DAYS
from multitron_core.lake.channels import Channel, parse_channels
from multitron_core.lake.night_comparison import Thresholds
from multitron_core.preference.keys import DEFAULT_GRID, pi_grid
from multitron_core.utils.redaction import redacted, without_credentials
from serving.repository import InstanceSettings

_SERVER = re.compile(
    r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>\d{1,5})"
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSettings(_Section):
    """Where the raw events are and how they are written."""

    # a folder, file, glob or URL; relative paths are relative to the home
    path: Annotated[str, AfterValidator(without_credentials)]
    format: Annotated[str, AfterValidator(lambda name: get_format(name).name)]
    files: str | None = None  # files of one day, for example "events-{date}.csv.gz"; none: every file has every day
    columns: dict[str, Any] = Field(default_factory=dict)  # the `table` format's column mapping
    max_reject_share: Annotated[float, Field(ge=0, le=1)] = 0.01  # a day with more bad lines is not ingested
    max_late_days: Annotated[int, Field(ge=0)] = LATE_DAYS  # an event that is older than its file by more is rejected
    orders_required: bool = True  # whether clicks without a file of orders are refused


class CalendarSettings(_Section):
    """The days that have partitions; days are UTC days, as in the event log."""

    first_day: dt.date
    last_day: dt.date | None = None  # none: the calendar grows with time


class SessionSettings(_Section):
    """How events become sessions."""

    split_days: Annotated[int, Field(ge=1)] | None = None  # none: the format's own rule
    state_days: Annotated[int, Field(ge=1)] = 30  # sessions of the last so many days are scored


class ModelSettings(_Section):
    """What is trained."""

    preset: str = "demo"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gate_baseline: Literal["co-visitation", "popularity"] = "co-visitation"  # what a model must beat in click recall
    processes: Annotated[int, Field(ge=1)] = 1  # torchrun starts so many: one for each GPU, or for some cores each
    gate_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05  # how much worse than the live front a new one may be
    front_points: Annotated[int, Field(ge=2, le=1000)] = 26  # preferences at which a front is measured; the paper's 26
    max_decay: Annotated[float, Field(gt=0, le=1)] = 0.2  # so much below its own front on a new day, it is trained anew
    training: dict[str, Any] = Field(default_factory=dict)  # settings of TrainingConfig that differ from the preset's


class ScoringSettings(_Section):
    """Which preferences are scored, and how long the lists are."""

    pi: Annotated[tuple[str, ...], AfterValidator(pi_grid)] = DEFAULT_GRID
    k: Annotated[int, Field(ge=1, le=200)] = 20
    assortment: str | None = None  # a parquet or CSV file or a Delta table with a column item_id; none: every item
    exclude_clicked: bool = False  # keep what a session clicked out of its list
    exclude_ordered: bool = False  # keep what a session ordered out of its list


def _server_addresses(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        match = _SERVER.fullmatch(url)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise InputError("not the gRPC address of a server", found=redacted(url), hint="write host:port")
    return urls


class TritonSettings(_Section):
    """Who answers the scoring requests."""

    # gRPC host:port of running servers; none: each step starts its own
    urls: Annotated[tuple[str, ...], AfterValidator(_server_addresses)] = ()
    scorer: Literal["triton", "in_process"] = "triton"
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 300.0  # that one request may take
    ready_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0  # that a step waits for a server to be there
    backend: Literal["python", "onnxruntime"] = "python"  # what runs the model; onnxruntime needs no torch
    gpu: bool = False  # whether the server runs it on its GPUs, an instance each
    instances: Annotated[int, Field(ge=1)] = 1  # copies of the model, on a GPU each so many
    threads: Annotated[int, Field(ge=0)] = 0  # of an instance on a CPU; 0: all cores
    score_memory_mib: Annotated[int, Field(ge=1)] = 256  # bound of the scores that an instance holds at a time

    def instance_settings(self) -> InstanceSettings:
        """As a deployment takes them."""
        return InstanceSettings(
            instances=self.instances,
            on_gpu=self.gpu,
            threads_per_instance=self.threads,
            score_memory_mib=self.score_memory_mib,
        )


class NightSettings(_Section):
    """When a night begins, when it has to be there, and how long it is made up for; hours count from the day's end."""

    begins_hours: Annotated[float, Field(ge=0, le=48)] = 1.0  # from then on the night is looked after
    deadline_hours: Annotated[float, Field(gt=0, le=336)] = 6.0  # from then on it is late
    catch_up_days: Annotated[int, Field(ge=1, le=60)] = 3  # so many of the last nights are made up for
    first_night: dt.date | None = None  # days before it are history, which is trained on; none: every day is scored
    last_night: dt.date | None = None  # days after it are not scored, where a data set ends with late orders

    @model_validator(mode="after")
    def _begins_before_its_deadline(self) -> NightSettings:
        if self.begins_hours >= self.deadline_hours:
            raise InputError(
                "a night would be late before it begins",
                where="night",
                found={"begins_hours": self.begins_hours, "deadline_hours": self.deadline_hours},
                hint="let it begin before its deadline",
            )
        return self

    def begins(self, day: dt.date) -> dt.datetime:
        """When the night of `day` is first looked after (UTC)."""
        return _end_of(day) + dt.timedelta(hours=self.begins_hours)

    def deadline(self, day: dt.date) -> dt.datetime:
        """When everything of `day` has to be published (UTC)."""
        return _end_of(day) + dt.timedelta(hours=self.deadline_hours)


def _end_of(day: dt.date) -> dt.datetime:
    """The midnight (UTC) with which a day ends."""
    return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)


def _checked_owner(owner: str) -> str:
    if not re.fullmatch(r"team:.+|[^@\s]+@[^@\s]+\.[^@\s.]{2,}", owner):
        raise ValueError("an owner is an email address or team:<name>")
    return owner


Owner = Annotated[str, AfterValidator(_checked_owner)]


Share = Annotated[float, Field(ge=0, le=1)]


class QualitySettings(_Section):
    """When a night looks too unlike the one before it to be published; see `night_comparison.Thresholds`."""

    min_lists: Annotated[float, Field(ge=0)] = Thresholds.min_lists
    min_items: Annotated[float, Field(ge=0)] = Thresholds.min_items
    min_overlap: Share = Thresholds.min_overlap
    max_top_share: Share = Thresholds.max_top_share

    def thresholds(self) -> Thresholds:
        """As the comparison takes them."""
        return Thresholds(**self.model_dump())


class IngestionSettings(_Section):
    """When an ingested day looks wrong; see `ingestion_checks.Limits`."""

    min_volume: Share = Limits.min_volume
    max_volume: Annotated[float, Field(ge=1)] = Limits.max_volume
    max_share: Share = Limits.max_share

    def limits(self) -> Limits:
        """As the checks take them."""
        return Limits(**self.model_dump())


class OwnerSettings(_Section):
    """Who answers for the assets of each group: an email address or `team:<name>`, as Dagster has it."""

    ingestion: Owner = "team:data engineering"
    training: Owner = "team:data science"
    serving: Owner = "team:data science"
    scoring: Owner = "team:data engineering"
    monitoring: Owner = "team:data science"
    publication: Owner = "team:data engineering"
    tables: Owner = "team:data engineering"

    def of(self, group: str) -> str:
        """The owner of a group of assets."""
        return str(getattr(self, group, self.ingestion))


class CodeSettings(_Section):
    """Where the project's code can be read; assets link to it."""

    repository: str | None = None  # https://<host>/<owner>/<name>; none: links to the files of this machine
    platform: Literal["github", "gitlab"] = "github"  # how that host writes addresses
    revision: str = "main"
    folder: str = "."  # of this project inside the repository


class TableSettings(_Section):
    """Where the tables are, and for how long."""

    # a folder or an address such as s3://bucket/prefix; none: lake/ in the home
    root: Annotated[str, AfterValidator(without_credentials)] | None = None
    keep_days: Annotated[int, Field(ge=1)] = 30  # older nights are deleted


def _checked_channels(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    parse_channels(sections)
    return sections


class Settings(_Section):
    """The settings of a shop, checked when they are loaded."""

    source: SourceSettings
    calendar: CalendarSettings
    sessions: SessionSettings = SessionSettings()
    model: ModelSettings = ModelSettings()
    scoring: ScoringSettings = ScoringSettings()
    night: NightSettings = NightSettings()
    triton: TritonSettings = TritonSettings()
    ingestion: IngestionSettings = IngestionSettings()
    quality: QualitySettings = QualitySettings()
    tables: TableSettings = TableSettings()
    owners: OwnerSettings = OwnerSettings()
    code: CodeSettings = CodeSettings()
    channels: Annotated[dict[str, dict[str, Any]], AfterValidator(_checked_channels)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lists_are_long_enough(self) -> Settings:
        for channel in self.declared_channels:
            if channel.k > self.scoring.k:
                raise InputError(
                    "a channel shows more items than a list has",
                    where=f"channel {channel.name}, k",
                    found=channel.k,
                    hint=f"use {self.scoring.k} or less, or raise k of [scoring]",
                )
        return self

    @property
    def declared_channels(self) -> tuple[Channel, ...]:
        """The channels."""
        return parse_channels(self.channels)

    @property
    def first_night(self) -> dt.date:
        """The first day that the nights score."""
        return max(self.calendar.first_day, self.night.first_night or dt.date.min)

    @property
    def last_night(self) -> dt.date:
        """The last day that the nights score; `date.max` where they go on."""
        return min(self.calendar.last_day or dt.date.max, self.night.last_night or dt.date.max)

    @property
    def preferences(self) -> tuple[str, ...]:
        """What a night scores: the grid, and what channels ask for beside it; rising."""
        return pi_grid({*self.scoring.pi, *(channel.pi for channel in self.declared_channels if channel.pi)})


def demo_settings() -> Settings:
    """The simulated shop that `make demo` takes the whole way."""
    return Settings(
        source=SourceSettings(path="raw", format="table", files="events-{date}.csv.gz"),
        calendar=CalendarSettings(first_day=dt.date(2026, 1, 1), last_day=dt.date(2026, 1, 8)),
        night=NightSettings(first_night=dt.date(2026, 1, 8)),
        channels={
            "newsletter": {"owner": "newsletter@example.com", "pi": "0.50", "k": 10},
            "product_page": {"owner": "pages@example.com", "table": "item_recommendations", "pi": "0.25", "k": 8},
            "home_page": {"owner": "pages@example.com", "table": "fallback_recommendations", "pi": "0.00"},
        },
    )
