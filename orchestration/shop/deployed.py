"""The deployed model of a shop and its vocabulary."""

from __future__ import annotations

import datetime as dt

from multitron_core.errors import InputError
from multitron_core.lake.lake import Lake
from multitron_core.lake.partition_files import partition_files
from multitron_core.sessions.vocabulary import Vocabulary
from orchestration.shop import models
from orchestration.shop.home import Shop
from serving.in_process import InProcessServer
from serving.interface import LiveModel
from serving.repository import ModelRepository, live_model_of
from serving.server import TritonServer


def live_model(shop: Shop) -> LiveModel:
    """The deployed version, from the model repository.

    Raises:
        InputError: nothing is deployed.
    """
    repository = ModelRepository(shop.triton_repository)
    config = repository.read_config()
    if config is None:
        raise InputError("nothing is deployed", where=repository.folder, hint="materialize the asset `deployed_model`")
    return live_model_of(config)


def live_vocabulary(shop: Shop) -> Vocabulary:
    """The vocabulary of the live model."""
    return Vocabulary.load(models.folder_of(shop, live_model(shop).model_version) / "vocabulary.parquet")


def written_vocabulary(shop: Shop, lake: Lake, table: str, day: dt.date, pi: str, delta_version: int) -> Vocabulary:
    """The vocabulary of the model that wrote a partition; the live model's where the partition is not there."""
    files = partition_files(lake.open(table, delta_version)).filter(run_date=day, pi=pi)
    if files.is_empty():
        return live_vocabulary(shop)
    return Vocabulary.load(models.folder_of(shop, files["model_version"][0]) / "vocabulary.parquet")


def live_model_and_vocabulary(shop: Shop, server: TritonServer | InProcessServer) -> tuple[LiveModel, Vocabulary]:
    """The version that the server answers with, whatever the repository says by now, and its vocabulary.

    A server by URL can be behind the repository; the rows carry the version that gave the scores.

    Raises:
        InputError: nothing is deployed there, or that version's model folder is gone.
        UnavailableError: the server does not answer.
    """
    live = server.live_model()
    return live, Vocabulary.load(models.folder_of(shop, live.model_version) / "vocabulary.parquet")
