"""A shop: its home folder, and its settings in `<home>/shop.toml`.

The home contains all files of one shop, so that two shops share nothing:

    shop.toml   raw/   lake/   sessions/   models/   triton/   dagster/
"""

from __future__ import annotations

import datetime as dt
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from orchestration.shop.layered_settings import checked_settings, overrides
from orchestration.shop.settings import Settings, demo_settings, server_addresses

HOME_VARIABLE = "MULTITRON_HOME"
URL_VARIABLE = "MULTITRON_TRITON_URL"
SCORER_VARIABLE = "MULTITRON_SCORER"
STORAGE_PREFIX = "MULTITRON_STORAGE_"
SOURCE_PREFIX = "MULTITRON_SOURCE_"
DEMO_HOME = Path("var/demo")


class Shop(BaseModel):
    """A shop's home folder and its settings.

    Args:
        home: the folder; paths of all files of the shop derive from it.
        settings: the contents of shop.toml.
    """

    model_config = ConfigDict(frozen=True)

    home: Path
    settings: Settings

    @property
    def source_path(self) -> str:
        """The path of the raw events; a relative path is resolved against the home."""
        path = self.settings.source.path
        return path if "://" in path or Path(path).is_absolute() else str(self.home / path)

    @property
    def lake_root(self) -> str:
        """The root of the Delta tables, a path or a URL; a relative path is resolved against the home."""
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

    def lake(self) -> Lake:
        """The Delta tables of the shop; no table is opened yet."""
        return Lake(self.lake_root, self.storage_options)

    @property
    def training_sessions(self) -> Path:
        """The folder of the encoded sessions that training reads."""
        return self.home / "sessions" / "training"

    def scoring_sessions(self, day: dt.date) -> Path:
        """The folder of the encoded sessions that a night scores."""
        return self.home / "sessions" / "scoring" / day.isoformat()

    def assortment_path(self, day: dt.date) -> str | None:
        """The table of the items that a night may show, or None; a relative path is resolved against the home."""
        path = self.settings.scoring.assortment
        if path is None:
            return None
        path = path.replace("{date}", day.isoformat())
        return path if "://" in path or Path(path).is_absolute() else str(self.home / path)

    def night_assortment(self, day: dt.date) -> Path:
        """The file of the assortment that was read for a night."""
        return self.home / "sessions" / "assortment" / f"{day.isoformat()}.parquet"

    @property
    def night_folders(self) -> tuple[Path, ...]:
        """The folders in which every night saves something named by its day."""
        return (self.home / "sessions" / "scoring", self.home / "sessions" / "assortment")

    @property
    def models(self) -> Path:
        """The folder of the trained models, one folder per model."""
        return self.home / "models"

    @property
    def triton_repository(self) -> Path:
        """The folder of the Triton model repository."""
        return self.home / "triton"

    @property
    def dagster_home(self) -> Path:
        """The folder of the shop's Dagster instance."""
        return self.home / "dagster"

    @property
    def scores_in_process(self) -> bool:
        """Whether steps score without a server; the environment goes before the file.

        Raises:
            InputError: the variable holds something else than a scorer.
        """
        scorer = os.environ.get(SCORER_VARIABLE) or self.settings.triton.scorer
        if scorer not in ("triton", "in_process"):
            raise InputError("unknown scorer", where=SCORER_VARIABLE, found=scorer, hint="use triton or in_process")
        return scorer == "in_process"

    @property
    def triton_urls(self) -> tuple[str, ...]:
        """Servers to use; the environment goes before the file, so that one command can bring its own server."""
        from_environment = os.environ.get(URL_VARIABLE, "")
        urls = tuple(url.strip() for url in from_environment.split(",") if url.strip())
        return server_addresses(urls) or self.settings.triton.urls


def _options(prefix: str) -> dict[str, str] | None:
    # MULTITRON_SOURCE__PATH is no option of a store but a setting, see `layered_settings`.
    names = [name for name in os.environ if name.startswith(prefix) and not name.startswith(prefix + "_")]
    return {name.removeprefix(prefix): os.environ[name] for name in names} or None


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
            hint=f"run `make demo`, or write a shop.toml and set {HOME_VARIABLE} to its folder",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("shop.toml is not TOML", where=path, found=str(error), hint="correct that line") from error
