"""The deployed model of a shop, and the vocabulary of its items."""

from __future__ import annotations

import datetime as dt

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.lake.partition_files import partition_files
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.shop import models
from orchestration.shop.home import Shop
from serving.interface import LiveModel, Server
from serving.repository import ModelRepository, live_model_of


def live_model(shop: Shop) -> LiveModel:
    """The live version according to the model repository.

    Raises:
        InputError: no model is deployed.
    """
    repository = ModelRepository(shop.triton_repository)
    config = repository.read_config()
    if config is None:
        raise InputError("no model is deployed", where=repository.folder, hint="materialize the asset `deployed_model`")
    return live_model_of(config)


def live_vocabulary(shop: Shop) -> Vocabulary:
    """The vocabulary of the live model; raises as `live_model` and `models.folder_of`."""
    return _vocabulary_of(shop, live_model(shop).model_version)


def written_vocabulary(shop: Shop, lake: Lake, table: str, day: dt.date, pi: str, delta_version: int) -> Vocabulary:
    """The vocabulary of the model that wrote a partition, or the live model's if the partition does not exist.

    Args:
        shop: the shop.
        lake: its tables.
        table: a table of ranked lists.
        day, pi: the partition.
        delta_version: the version of the table to read.
    """
    files = partition_files(lake.open(table, delta_version)).filter(run_date=day, pi=pi)
    if files.is_empty():
        return live_vocabulary(shop)
    return _vocabulary_of(shop, files["model_version"][0])


def live_model_and_vocabulary(shop: Shop, server: Server) -> tuple[LiveModel, Vocabulary]:
    """The version that a server currently serves, and its vocabulary.

    A server that is addressed by URL can lag behind the repository. The rows of a table must carry the version that
    computed their scores, so the server is queried, not the repository.

    Raises:
        InputError: the server has no model, or the model folder of its version is missing.
        UnavailableError: the server does not respond.
    """
    live = server.live_model()
    return live, _vocabulary_of(shop, live.model_version)


def _vocabulary_of(shop: Shop, model_version: str) -> Vocabulary:
    return Vocabulary.load(models.folder_of(shop, model_version) / "vocabulary.parquet")
