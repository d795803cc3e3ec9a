"""A shop: its home folder and its settings, `<home>/shop.toml`.

The home holds everything of one shop, each in a folder of its own, so that two shops never meet:

    shop.toml   raw/   lake/   sessions/   models/   triton/   dagster/
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from multitron_core.channels import Channel, parse_channels
from multitron_core.errors import InputError
from multitron_core.formats import get_format
from multitron_core.ingestion_checks import Limits
from multitron_core.lake import Lake
from multitron_core.night_comparison import Thresholds
from multitron_core.preference import DEFAULT_GRID, pi_grid
from multitron_core.raw_source import LATE_DAYS
from multitron_core.secrets import redacted, without_credentials
from orchestration.layered_settings import checked_settings, overrides
from serving.repository import InstanceSettings

HOME_VARIABLE = "MULTITRON_HOME"
URL_VARIABLE = "MULTITRON_TRITON_URL"
SCORER_VARIABLE = "MULTITRON_SCORER"
STORAGE_PREFIX = "MULTITRON_STORAGE_"
SOURCE_PREFIX = "MULTITRON_SOURCE_"
DEMO_HOME = Path("var/demo")
_SERVER = re.compile(
    r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>\d{1,5})"
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Section):
    """Where the raw events are and how they are written."""

    # a folder, file, glob or URL; relative paths are relative to the home
    path: Annotated[str, AfterValidator(without_credentials)]
    format: Annotated[str, AfterValidator(lambda name: get_format(name).name)]
    files: str | None = None  # files of one day, for example "events-{date}.csv.gz"; none: every file has every day
    columns: dict[str, Any] = Field(default_factory=dict)  # the `table` format's column mapping
    max_reject_share: Annotated[float, Field(ge=0, le=1)] = 0.01  # a day with more bad lines is not ingested
    max_late_days: Annotated[int, Field(ge=0)] = LATE_DAYS  # an event that is older than its file by more is rejected
    orders_required: bool = True  # whether clicks without a file of orders are refused


class Calendar(_Section):
    """The days that have partitions; days are UTC days, as in the event log."""

    first_day: dt.date
    last_day: dt.date | None = None  # none: the calendar grows with time


class Sessions(_Section):
    """How events become sessions."""

    split_days: Annotated[int, Field(ge=1)] | None = None  # none: the format's own rule
    state_days: Annotated[int, Field(ge=1)] = 30  # sessions of the last so many days are scored


class Model(_Section):
    """What is trained."""

    preset: str = "demo"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gate_baseline: Literal["co-visitation", "popularity"] = "co-visitation"  # what a model must beat in click recall
    processes: Annotated[int, Field(ge=1)] = 1  # torchrun starts so many: one for each GPU, or for some cores each
    gate_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05  # how much worse than the live front a new one may be
    front_points: Annotated[int, Field(ge=2, le=1000)] = 26  # preferences at which a front is measured; the paper's 26
    max_decay: Annotated[float, Field(gt=0, le=1)] = 0.2  # so much below its own front on a new day, it is trained anew
    training: dict[str, Any] = Field(default_factory=dict)  # settings of TrainingConfig that differ from the preset's


class Scoring(_Section):
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
            raise InputError("not the gRPC address of a server", found=redacted(url), mend="write host:port")
    return urls


class Triton(_Section):
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


class Night(_Section):
    """When a night begins, when it has to be there, and how long it is made up for; hours count from the day's end."""

    begins_hours: Annotated[float, Field(ge=0, le=48)] = 1.0  # from then on the night is looked after
    deadline_hours: Annotated[float, Field(gt=0, le=336)] = 6.0  # from then on it is late
    catch_up_days: Annotated[int, Field(ge=1, le=60)] = 3  # so many of the last nights are made up for
    first_night: dt.date | None = None  # days before it are history, which is trained on; none: every day is scored
    last_night: dt.date | None = None  # days after it are not scored, where a data set ends with late orders

    @model_validator(mode="after")
    def _begins_before_its_deadline(self) -> Night:
        if self.begins_hours >= self.deadline_hours:
            raise InputError(
                "a night would be late before it begins",
                where="night",
                found={"begins_hours": self.begins_hours, "deadline_hours": self.deadline_hours},
                mend="let it begin before its deadline",
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


class Quality(_Section):
    """When a night looks too unlike the one before it to be published; see `night_comparison.Thresholds`."""

    min_lists: Annotated[float, Field(ge=0)] = Thresholds.min_lists
    min_items: Annotated[float, Field(ge=0)] = Thresholds.min_items
    min_overlap: Share = Thresholds.min_overlap
    max_top_share: Share = Thresholds.max_top_share

    def thresholds(self) -> Thresholds:
        """As the comparison takes them."""
        return Thresholds(**self.model_dump())


class Ingestion(_Section):
    """When an ingested day looks wrong; see `ingestion_checks.Limits`."""

    min_volume: Share = Limits.min_volume
    max_volume: Annotated[float, Field(ge=1)] = Limits.max_volume
    max_share: Share = Limits.max_share

    def limits(self) -> Limits:
        """As the checks take them."""
        return Limits(**self.model_dump())


class Owners(_Section):
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


class Code(_Section):
    """Where the project's code can be read; assets link to it."""

    repository: str | None = None  # https://<host>/<owner>/<name>; none: links to the files of this machine
    platform: Literal["github", "gitlab"] = "github"  # how that host writes addresses
    revision: str = "main"
    folder: str = "."  # of this project inside the repository


class Tables(_Section):
    """Where the tables are, and for how long."""

    # a folder or an address such as s3://bucket/prefix; none: lake/ in the home
    root: Annotated[str, AfterValidator(without_credentials)] | None = None
    keep_days: Annotated[int, Field(ge=1)] = 30  # older nights are deleted


def _checked_channels(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    parse_channels(sections)
    return sections


class Settings(_Section):
    """The settings of a shop, checked when they are loaded."""

    source: Source
    calendar: Calendar
    sessions: Sessions = Sessions()
    model: Model = Model()
    scoring: Scoring = Scoring()
    night: Night = Night()
    triton: Triton = Triton()
    ingestion: Ingestion = Ingestion()
    quality: Quality = Quality()
    tables: Tables = Tables()
    owners: Owners = Owners()
    code: Code = Code()
    channels: Annotated[dict[str, dict[str, Any]], AfterValidator(_checked_channels)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lists_are_long_enough(self) -> Settings:
        for channel in self.declared_channels:
            if channel.k > self.scoring.k:
                raise InputError(
                    "a channel shows more items than a list has",
                    where=f"channel {channel.name}, k",
                    found=channel.k,
                    mend=f"use {self.scoring.k} or less, or raise k of [scoring]",
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


class Shop(BaseModel):
    """A home folder with its settings."""

    model_config = ConfigDict(frozen=True)

    home: Path
    settings: Settings

    @property
    def source_path(self) -> str:
        """The raw events' path; a relative one is taken from the home."""
        path = self.settings.source.path
        return path if "://" in path or Path(path).is_absolute() else str(self.home / path)

    @property
    def lake(self) -> str:
        """The root of the Delta tables; a relative folder is taken from the home."""
        root = self.settings.tables.root or "lake"
        return root if "://" in root else str(self.home / root)

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What the object store of the tables asks for, MULTITRON_STORAGE_<option> in the environment.

        Credentials have no place in a file of settings. None leaves deltalake to what it finds by itself, for example
        AWS_REGION and the machine's role.
        """
        return _options(STORAGE_PREFIX)

    @property
    def source_options(self) -> dict[str, str] | None:
        """What the object store of the raw files asks for, MULTITRON_SOURCE_<option>; else the tables' options."""
        return _options(SOURCE_PREFIX) or self.storage_options

    def tables(self) -> Lake:
        """The Delta tables."""
        return Lake(self.lake, self.storage_options)

    @property
    def training_sessions(self) -> Path:
        """The encoded sessions that training reads."""
        return self.home / "sessions" / "training"

    def scoring_sessions(self, day: dt.date) -> Path:
        """The encoded sessions that a night scores."""
        return self.home / "sessions" / "scoring" / day.isoformat()

    def assortment_path(self, day: dt.date) -> str | None:
        """The table of the items that a night may show; a relative path is taken from the home."""
        path = self.settings.scoring.assortment
        if path is None:
            return None
        path = path.replace("{date}", day.isoformat())
        return path if "://" in path or Path(path).is_absolute() else str(self.home / path)

    def night_assortment(self, day: dt.date) -> Path:
        """What was read from it for a night."""
        return self.home / "sessions" / "assortment" / f"{day.isoformat()}.parquet"

    @property
    def night_folders(self) -> tuple[Path, ...]:
        """Where every night leaves something that is named by its day."""
        return (self.home / "sessions" / "scoring", self.home / "sessions" / "assortment")

    @property
    def models(self) -> Path:
        """The trained models, a folder each."""
        return self.home / "models"

    @property
    def triton_repository(self) -> Path:
        """The Triton model repository."""
        return self.home / "triton"

    @property
    def dagster_home(self) -> Path:
        """The Dagster instance of this shop."""
        return self.home / "dagster"

    @property
    def scores_in_process(self) -> bool:
        """Whether steps score without a server; the environment goes before the file.

        Raises:
            InputError: the variable holds something else than a scorer.
        """
        scorer = os.environ.get(SCORER_VARIABLE) or self.settings.triton.scorer
        if scorer not in ("triton", "in_process"):
            raise InputError("unknown scorer", where=SCORER_VARIABLE, found=scorer, mend="use triton or in_process")
        return scorer == "in_process"

    @property
    def triton_urls(self) -> tuple[str, ...]:
        """Servers to use; the environment goes before the file, so that one command can bring its own server."""
        from_environment = os.environ.get(URL_VARIABLE, "")
        urls = tuple(url.strip() for url in from_environment.split(",") if url.strip())
        return _server_addresses(urls) or self.settings.triton.urls


def _options(prefix: str) -> dict[str, str] | None:
    # MULTITRON_SOURCE__PATH is no option of a store but a setting, see `layered_settings`.
    names = [name for name in os.environ if name.startswith(prefix) and not name.startswith(prefix + "_")]
    return {name.removeprefix(prefix): os.environ[name] for name in names} or None


def demo_settings() -> Settings:
    """The simulated shop that `make demo` takes the whole way."""
    return Settings(
        source=Source(path="raw", format="table", files="events-{date}.csv.gz"),
        calendar=Calendar(first_day=dt.date(2026, 1, 1), last_day=dt.date(2026, 1, 8)),
        night=Night(first_night=dt.date(2026, 1, 8)),
        channels={
            "newsletter": {"owner": "newsletter@example.com", "pi": "0.50", "k": 10},
            "product_page": {"owner": "pages@example.com", "table": "item_recommendations", "pi": "0.25", "k": 8},
            "home_page": {"owner": "pages@example.com", "table": "fallback_recommendations", "pi": "0.00"},
        },
    )


def shop_or_demo() -> Shop:
    """The shop of MULTITRON_HOME; without that variable and before the first `make demo`, the demo's."""
    if HOME_VARIABLE not in os.environ and not (DEMO_HOME / "shop.toml").exists():
        settings = checked_settings(Settings, demo_settings().model_dump(), "the demo's settings", overrides())
        return Shop(home=DEMO_HOME.resolve(), settings=settings)
    return load_shop()


def load_shop(home: Path | str | None = None) -> Shop:
    """The shop of a home folder: its shop.toml, overridden by `MULTITRON_<SECTION>__<NAME>` in the environment.

    Args:
        home: the folder; none takes the environment variable MULTITRON_HOME, or `var/demo`.

    Raises:
        InputError: no shop.toml there, not TOML, or wrong settings, all of which are named.
    """
    folder = Path(home or os.environ.get(HOME_VARIABLE) or DEMO_HOME).resolve()
    return Shop(home=folder, settings=checked_settings(Settings, *_read(folder), overrides()))


def file_settings(home: Path | str) -> Settings:
    """The settings of a home's shop.toml alone, to be changed and written back.

    Raises:
        InputError: as `load_shop`.
    """
    return checked_settings(Settings, *_read(Path(home)))


def _read(folder: Path) -> tuple[dict[str, Any], Path]:
    """The values of a home's shop.toml, and its path."""
    path = folder / "shop.toml"
    try:
        return tomllib.loads(path.read_text()), path
    except FileNotFoundError as error:
        raise InputError(
            "no shop here",
            where=path,
            mend=f"run `make demo`, or write a shop.toml and set {HOME_VARIABLE} to its folder",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("shop.toml is not TOML", where=path, found=str(error), mend="mend that line") from error


def write_shop(home: Path | str, settings: Settings) -> Path:
    """Write `settings` as a commented shop.toml, atomically.

    Returns:
        The path of the file.
    """
    path = Path(home) / "shop.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".toml.new")
    beside.write_text(_as_toml(settings))
    os.replace(beside, path)
    return path


_EXPLANATIONS = {
    "source": "Where the raw events are and how they are written.",
    "calendar": "The days that have partitions; without last_day the calendar grows with time.",
    "sessions": "split_days: the test days of training. state_days: sessions of the last so many days are scored.",
    "model": "The preset, and what differs from it in [model.training].",
    "scoring": "A partition a night for each pi (the weight on orders); the lists: their length, what may be in them.",
    "night": "Hours after the day's end (UTC): begins, is late; days outside first_night to last_night are not scored.",
    "triton": "gRPC host:port of running servers; none: each step starts its own on loopback.",
    "ingestion": "Against a usual day: a day beyond these fails its checks. max_share: of bad lines.",
    "quality": "Against the night before: a night beyond these is not published.",
    "tables": "root: where the tables are, none: lake/ here. keep_days: older nights are deleted.",
    "owners": "Who answers for each group of assets: an email address or team:<name>.",
    "code": "repository: https://<host>/<owner>/<name> for links from the assets; none: the files of this machine.",
    "channels": "Who reads which table at which pi, a section [channels.<name>] each.",
}


def _as_toml(settings: Settings) -> str:
    lines = ["# The settings of this shop. `make demo` wrote them once; change what you like."]
    for section, values in settings.model_dump(exclude_none=True).items():
        lines += ["", f"# {_EXPLANATIONS[section]}", f"[{section}]"]
        tables = {name: value for name, value in values.items() if isinstance(value, dict)}
        lines += [f"{name} = {_value(value)}" for name, value in values.items() if name not in tables]
        for name, table in tables.items():
            if table:
                lines += ["", f"[{section}.{name}]", *[f"{key} = {_value(value)}" for key, value in table.items()]]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)  # TOML's strings, numbers and booleans are JSON's


def lake_of(shop: Shop) -> Lake:
    """The Delta tables of a shop."""
    return Lake(shop.lake, shop.storage_options)
