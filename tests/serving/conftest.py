"""Small models written by hand, and one real Triton server a module."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import write_untrained_model
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving.server import TritonServer
from serving.triton_home import find_triton_home

ITEMS = 500
torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False  # pytest would keep every line of an export


def write_model(folder: Path, *, items: int = ITEMS, seed: int = 0, version: str = "first", **shape: object) -> Path:
    """A model folder as training writes it, with random weights."""
    config = ModelConfig(items=items, **{"dimension": 16, "max_length": 10, "item_scale": 1.0, **shape})  # type: ignore[arg-type]
    vocabulary = Vocabulary(pl.Series([f"item {i:07}" for i in range(items)]))
    return write_untrained_model(folder, config, vocabulary, seed=seed, version=version)


def some_sessions(vocabulary: Vocabulary, count: int, *, seed: int = 0, longest: int = 14) -> EncodedSessions:
    """Random sessions of 1 to `longest` clicks whose ids are not in order; short ones repeat."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = generator.integers(1, len(vocabulary) + 1, offsets[-1], dtype=np.int32)
    ids = pl.Series([f"s{number}" for number in generator.permutation(count)])
    return EncodedSessions(ids, offsets, items, generator.random(len(items)) < 0.2, vocabulary.hash)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="module")
def vocabulary(model_dir: Path) -> Vocabulary:
    return Vocabulary.load(model_dir / "vocabulary.parquet")


def require_triton() -> None:
    """Skip where the server's binary is not installed."""
    try:
        find_triton_home()
    except InputError as error:
        pytest.skip(f"no Triton server here: {error}")


def wait_until(what: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def process_group(leader: int) -> list[int]:
    """The live processes of a process group, by /proc."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and alive(int(folder.name)):
            with suppress(OSError):
                if (folder / "stat").read_text().rsplit(")", 1)[1].split()[2] == str(leader):
                    found.append(int(folder.name))
    return found


def process_of_its_model(server: TritonServer) -> int:
    """The process of the one model that a server runs."""
    assert server.process_id is not None
    (found,) = (pid for pid in process_group(server.process_id) if pid != server.process_id)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    require_triton()
    with TritonServer(tmp_path_factory.mktemp("triton") / "repository") as running:
        yield running
