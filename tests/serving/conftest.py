"""Small hand-made models, a repository with a deployed version, and a Triton server that serves it."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import write_untrained_model
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.file_lock import file_lock
from serving.deployment import deploy
from serving.in_process import InProcessServer
from serving.repository import ModelRepository
from serving.server import TritonServer
from serving.triton_home import find_triton_home

ITEMS = 500
logging.getLogger("torch.__trace").propagate = False  # pytest would keep every log line of an export


def write_model(folder: Path, *, items: int = ITEMS, seed: int = 0, version: str = "first", **shape: Any) -> Path:
    """A model folder as training writes it, with random weights."""
    config = ModelConfig(items=items, **{"dimension": 16, "max_length": 10, "item_scale": 1.0, **shape})
    vocabulary = Vocabulary(pl.Series([f"item {i:07}" for i in range(items)]))
    return write_untrained_model(folder, config, vocabulary, seed=seed, version=version)


def some_sessions(vocabulary: Vocabulary, count: int, *, seed: int = 0, longest: int = 14) -> EncodedSessions:
    """Random sessions of 1 to `longest` clicks with unsorted ids; short ones repeat."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = generator.integers(1, len(vocabulary) + 1, offsets[-1], dtype=np.int32)
    ids = pl.Series([f"s{number}" for number in generator.permutation(count)])
    return EncodedSessions(ids, offsets, items, generator.random(len(items)) < 0.2, vocabulary.hash)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the version "first"."""
    return write_model(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="session")
def vocabulary(model_dir: Path) -> Vocabulary:
    """The vocabulary of `model_dir`."""
    return Vocabulary.load(model_dir / "vocabulary.parquet")


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A repository in which `model_dir` is version 1, for the python backend. Tests copy it and do not change it.

    An export takes seconds, so all processes of a test run share one.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    repository = shared / "deployed"
    with file_lock(shared / "deployed.lock"), InProcessServer(repository) as server:
        if ModelRepository(repository).read_config() is None:
            deploy(model_dir, server, golden_pi=["0.50"])
    return repository


@pytest.fixture
def repository(tmp_path: Path, deployed: Path) -> Path:
    """A copy of `deployed` for one test."""
    return Path(shutil.copytree(deployed, tmp_path / "repository"))


@pytest.fixture(scope="session")
def triton() -> Path:
    """The folder of the Triton binary; skips the test where it is not installed."""
    try:
        return find_triton_home()
    except InputError as error:
        pytest.skip(f"no Triton server on this machine: {error}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, triton: Path, deployed: Path) -> Iterator[TritonServer]:
    """A Triton server that serves a copy of `deployed`. Tests do not change what it serves."""
    repository = shutil.copytree(deployed, tmp_path_factory.mktemp("triton") / "repository")
    with TritonServer(repository) as running:
        yield running


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fails after the given time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was false for {seconds:g} s"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    """Whether a process runs, by /proc; an ended process that its parent has not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def process_group(leader: int) -> list[int]:
    """The running processes of a process group, by /proc."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and is_alive(int(folder.name)):
            with suppress(OSError):
                if (folder / "stat").read_text().rsplit(")", 1)[1].split()[2] == str(leader):
                    found.append(int(folder.name))
    return found


def model_process(server: TritonServer) -> int:
    """The process of the only model that an embedded server runs."""
    assert server.process_id is not None
    (found,) = (pid for pid in process_group(server.process_id) if pid != server.process_id)
    return found
