"""The settings of a shop: one class per section of shop.toml, validated when the file is loaded.

The comment of a field is its explanation in docs/reference.md.
"""

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
    """Location and format of the raw events."""

    # a folder, file, glob pattern or URL; relative paths are resolved against the home
    path: Annotated[str, AfterValidator(without_credentials)]
    format: Annotated[str, AfterValidator(lambda name: get_format(name).name)]
    # name of one day's files, for example "events-{date}.csv.gz"; none: every file may contain any day
    files: str | None = None
    columns: dict[str, Any] = Field(default_factory=dict)  # column mapping of the format `table`
    # a day with a larger share of rejected lines is not ingested
    max_reject_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_late_days: Annotated[int, Field(ge=0)] = LATE_DAYS  # events older than their file by more days are rejected
    orders_required: bool = True  # whether clicks without an orders file are an error


class CalendarSettings(_Section):
    """The days that have partitions. Days are UTC days, as in the event log."""

    first_day: dt.date
    last_day: dt.date | None = None  # none: the calendar has no end and grows every day


class SessionSettings(_Section):
    """How events are grouped into sessions."""

    split_days: Annotated[int, Field(ge=1)] | None = None  # days of the test split; none: the rule of the format
    state_days: Annotated[int, Field(ge=1)] = 30  # a night scores the sessions of the last state_days days


class ModelSettings(_Section):
    """The model, how it is trained, and the gates before its deployment."""

    preset: str = "demo"  # the named training recipe
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where training runs; auto: a GPU if there is one
    # baseline whose click recall@20 a model must exceed to be deployed
    gate_baseline: Literal["co-visitation", "popularity"] = "co-visitation"
    processes: Annotated[int, Field(ge=1)] = 1  # of training (torchrun): one per GPU, or one per group of CPU cores
    # share of each figure of the live model's front that a new model may lack
    gate_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    front_points: Annotated[int, Field(ge=2, le=1000)] = 26  # preferences at which a front is measured; paper: 26
    # share of its front's area that a model may lose on a new day before it is retrained
    max_decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    training: dict[str, Any] = Field(default_factory=dict)  # training settings that replace those of the preset


class ScoringSettings(_Section):
    """The preferences that are scored, and the contents of the lists."""

    pi: Annotated[tuple[str, ...], AfterValidator(pi_grid)] = DEFAULT_GRID  # weights on orders, "0.00" to "1.00"
    k: Annotated[int, Field(ge=1, le=200)] = 20  # items per list
    # items that may be shown: a parquet file, CSV file or Delta table with a column item_id; none: every item
    assortment: str | None = None
    exclude_clicked: bool = False  # exclude the items that a session clicked from its list
    exclude_ordered: bool = False  # exclude the items that a session ordered from its list


def server_addresses(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Validate gRPC addresses `host:port`.

    Raises:
        InputError: one is not such an address; credentials in it are not shown.
    """
    for url in urls:
        match = _SERVER.fullmatch(url)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise InputError("not a gRPC address of a server", found=redacted(url), hint="write host:port")
    return urls


class TritonSettings(_Section):
    """The servers that compute scores, and how they run the model."""

    # gRPC host:port of running servers; none: each step starts a server
    urls: Annotated[tuple[str, ...], AfterValidator(server_addresses)] = ()
    scorer: Literal["triton", "in_process"] = "triton"  # in_process: each step scores by itself, without a server
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 300.0  # time limit of one request
    ready_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0  # how long a step waits for a server to become ready
    backend: Literal["python", "onnxruntime"] = "python"  # Triton backend; onnxruntime needs no torch
    gpu: bool = False  # whether the server runs the model on its GPUs
    instances: Annotated[int, Field(ge=1)] = 1  # copies of the model, per GPU if gpu is set
    threads: Annotated[int, Field(ge=0)] = 0  # CPU threads per instance; 0: all cores
    score_memory_mib: Annotated[int, Field(ge=1)] = 256  # MiB of scores that an instance holds at a time, at most

    def instance_settings(self) -> InstanceSettings:
        """The instance settings that `serving.deployment.deploy` takes."""
        return InstanceSettings(
            instances=self.instances,
            on_gpu=self.gpu,
            threads_per_instance=self.threads,
            score_memory_mib=self.score_memory_mib,
        )


class NightSettings(_Section):
    """When a night begins, when it is due, and how many are caught up; hours count from the day's end (UTC)."""

    begins_hours: Annotated[float, Field(ge=0, le=48)] = 1.0  # the night begins
    deadline_hours: Annotated[float, Field(gt=0, le=336)] = 6.0  # the night is late if it is not published by then
    catch_up_days: Annotated[int, Field(ge=1, le=60)] = 3  # number of past nights that are completed automatically
    # first day that is scored; earlier days serve training only; none: the first day of the calendar
    first_night: dt.date | None = None
    # last day that is scored, for a data set that ends with days of late orders; none: the last day of the calendar
    last_night: dt.date | None = None

    @model_validator(mode="after")
    def _begins_before_its_deadline(self) -> NightSettings:
        if self.begins_hours >= self.deadline_hours:
            raise InputError(
                "a night is due before it begins",
                where="night",
                found={"begins_hours": self.begins_hours, "deadline_hours": self.deadline_hours},
                hint="make begins_hours smaller than deadline_hours",
            )
        return self

    def begins(self, day: dt.date) -> dt.datetime:
        """When the night of `day` begins (UTC)."""
        return _end_of(day) + dt.timedelta(hours=self.begins_hours)

    def deadline(self, day: dt.date) -> dt.datetime:
        """When everything of `day` must be published (UTC)."""
        return _end_of(day) + dt.timedelta(hours=self.deadline_hours)


def _end_of(day: dt.date) -> dt.datetime:
    """The midnight (UTC) that ends a day."""
    return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)


def _checked_owner(owner: str) -> str:
    if not re.fullmatch(r"team:.+|[^@\s]+@[^@\s]+\.[^@\s.]{2,}", owner):
        raise ValueError("an owner is an email address or team:<name>")
    return owner


Owner = Annotated[str, AfterValidator(_checked_owner)]
Share = Annotated[float, Field(ge=0, le=1)]


class QualitySettings(_Section):
    """Thresholds of the comparison with the previous night; a night beyond one of them is not published."""

    min_lists: Annotated[float, Field(ge=0)] = Thresholds.min_lists  # number of lists, over that of the previous night
    min_items: Annotated[float, Field(ge=0)] = Thresholds.min_items  # distinct items shown, over those of that night
    min_overlap: Share = Thresholds.min_overlap  # mean share of a list's items that the previous list had too
    max_top_share: Share = Thresholds.max_top_share  # share of rows that the most shown 1 % of items take

    def thresholds(self) -> Thresholds:
        """The thresholds that `night_comparison.violations` takes."""
        return Thresholds(**self.model_dump())


class IngestionSettings(_Section):
    """Limits of the checks of an ingested day."""

    min_volume: Share = Limits.min_volume  # number of events, over that of a usual day
    max_volume: Annotated[float, Field(ge=1)] = Limits.max_volume  # number of events, over that of a usual day
    max_share: Share = Limits.max_share  # share of rejected lines

    def limits(self) -> Limits:
        """The limits that the functions of `ingestion_checks` take."""
        return Limits(**self.model_dump())


class OwnerSettings(_Section):
    """The owner of each asset group: an email address or `team:<name>`, the two forms that Dagster accepts."""

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
    """The repository with the project's code, which the assets link to."""

    repository: str | None = None  # https://<host>/<owner>/<name>; none: links to the files on this machine
    platform: Literal["github", "gitlab"] = "github"  # determines the form of the links
    revision: str = "main"  # branch, tag or commit
    folder: str = "."  # the project's folder inside the repository


class TableSettings(_Section):
    """Location and retention of the tables."""

    # a folder or a URL such as s3://bucket/prefix; none: lake/ in the home
    root: Annotated[str, AfterValidator(without_credentials)] | None = None
    keep_days: Annotated[int, Field(ge=1)] = 30  # nights older than this are deleted


def _checked_channels(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    parse_channels(sections)
    return sections


class Settings(_Section):
    """All settings of a shop, one attribute per section of shop.toml."""

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
                    "a channel requests more items than a list has",
                    where=f"channel {channel.name}, k",
                    found=channel.k,
                    hint=f"use {self.scoring.k} or less, or raise k of [scoring]",
                )
        return self

    @property
    def declared_channels(self) -> tuple[Channel, ...]:
        """The sections [channels.NAME] as channels."""
        return parse_channels(self.channels)

    @property
    def first_night(self) -> dt.date:
        """The first day that is scored."""
        return max(self.calendar.first_day, self.night.first_night or dt.date.min)

    @property
    def last_night(self) -> dt.date:
        """The last day that is scored; `date.max` if the nights have no end."""
        return min(self.calendar.last_day or dt.date.max, self.night.last_night or dt.date.max)

    @property
    def preferences(self) -> tuple[str, ...]:
        """The preferences of a night: the grid of [scoring] and the pi of the channels, ascending."""
        return pi_grid({*self.scoring.pi, *(channel.pi for channel in self.declared_channels if channel.pi)})


def demo_settings() -> Settings:
    """The settings of the simulated shop that `make demo` runs end to end."""
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
