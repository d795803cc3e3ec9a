"""Deployments on a real Triton server: promoted when right, without effect when not."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from multitron_core.errors import InputError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving import deployment, version_program
from serving.deployment import deploy, rollback
from serving.export import export_version
from serving.gates import better_than
from serving.golden import compare_lists, golden_requests
from serving.in_process import InProcessScorer, InProcessServer
from serving.manifest import Manifest, read_manifest
from serving.repository import ModelRepository
from serving.scorer import score_sessions
from serving.server import TritonServer
from serving.version_program import file_sha256
from tests.serving.conftest import some_sessions, write_model


def lists(server: TritonServer | InProcessServer, sessions: EncodedSessions, vocabulary: Vocabulary) -> pl.DataFrame:
    return pl.concat(score_sessions(sessions, "0.50", 5, scorer=server.scorer(), vocabulary=vocabulary))


def same_lists(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    return bool(
        one.drop("score").equals(other.drop("score"))
        and np.allclose(one["score"], other["score"], rtol=1e-5, atol=1e-5)
    )


def copy_altered(exported: Path, _: Path, folder: Path, *, with_checksums: bool = False, **options: Any) -> Manifest:
    """Instead of an export: one whose weights are not the model folder's, if asked with checksums that fit them."""
    shutil.copytree(exported, folder)
    manifest, path = read_manifest(folder), folder / "weights.safetensors"
    weights = load_file(path)
    weights["model.norm.bias"] += 0.5
    save_file(weights, path)
    if with_checksums:
        manifest = replace(manifest, files={**manifest.files, path.name: file_sha256(str(path))})
        (folder / "manifest.json").write_text(json.dumps(manifest.__dict__))
    return manifest


def test_a_whole_life_on_one_server(
    server: TritonServer, model_dir: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = some_sessions(vocabulary, 300)
    with pytest.raises(InputError, match="no model is deployed"):
        server.live_model()

    first = deploy(model_dir, server, golden_sessions=sessions, golden_pi=["0.00", "1.00"])
    assert (first.version, first.previous_version, first.golden_lists) == (1, None, 2 * 257)
    assert server.live_model().model_version == "first"
    assert server.live_model().vocabulary_hash == vocabulary.hash
    expected = pl.concat(score_sessions(sessions, "0.50", 5, scorer=InProcessScorer(model_dir), vocabulary=vocabulary))
    assert same_lists(lists(server, sessions, vocabulary), expected)

    # A version whose weights are not the model's is refused while a client scores without an error.
    stop, failures, rounds = threading.Event(), [], []

    def score_all_the_time() -> None:
        while not stop.wait(0.1):
            try:
                rounds.append(same_lists(lists(server, sessions, vocabulary), expected))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test must show it
                failures.append(error)

    client = threading.Thread(target=score_all_the_time, daemon=True)
    client.start()

    second_dir = write_model(tmp_path / "second", seed=1, version="second")
    export_version(second_dir, tmp_path / "exported")
    with monkeypatch.context() as patch:
        patch.setattr(deployment, "export_version", partial(copy_altered, tmp_path / "exported", with_checksums=True))
        with pytest.raises(InputError, match="does not give the lists"):
            deploy(second_dir, server, golden_sessions=sessions, golden_pi=["0.50"])
        patch.setattr(deployment, "export_version", partial(copy_altered, tmp_path / "exported"))
        with pytest.raises(InputError, match="checksum"):
            deploy(second_dir, server, golden_sessions=sessions)
        patch.setattr(deployment, "verify_checksums", lambda folder: None)
        with pytest.raises(InputError, match="checksum"):  # the server looks for itself
            deploy(second_dir, server, golden_sessions=sessions)
    assert ModelRepository(server.repository).versions() == [1]  # type: ignore[arg-type]
    during_refusals = list(rounds)

    second = deploy(second_dir, server, golden_sessions=sessions, golden_pi=["0.50"])
    stop.set()
    client.join()
    assert failures == []
    assert len(during_refusals) > 2
    assert all(during_refusals)
    assert (second.version, second.previous_version) == (2, 1)
    assert server.live_model().model_version == "second"
    assert not same_lists(lists(server, sessions, vocabulary), expected)

    back = rollback(None, server)
    assert (back.version, back.previous_version) == (1, 2)
    assert same_lists(lists(server, sessions, vocabulary), expected)
    with pytest.raises(InputError, match="not kept"):
        rollback(7, server)

    # A server that is started again has what was live.
    assert server.repository is not None
    with TritonServer(server.repository) as again:
        assert again.live_model().version == 1
        assert same_lists(lists(again, sessions, vocabulary), expected)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A repository with one deployed version, to be copied."""
    repository = tmp_path_factory.mktemp("deployed") / "repository"
    with InProcessServer(repository) as server:
        deploy(model_dir, server, golden_pi=["0.50"])
    return repository


@pytest.fixture
def here(tmp_path: Path, deployed: Path) -> InProcessServer:
    """A server in this process with one deployed version: what follows does not depend on who serves."""
    return InProcessServer(Path(shutil.copytree(deployed, tmp_path / "repository")))


def test_a_version_that_answers_otherwise_is_refused(
    here: InProcessServer, tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_model(tmp_path / "other", seed=3, version="other")
    right = write_model(tmp_path / "right", seed=4, version="right")
    monkeypatch.setattr(deployment, "export_version", lambda _, folder, **options: export_version(other, folder))
    with here:
        before = lists(here, some_sessions(vocabulary, 50), vocabulary)
        with pytest.raises(InputError, match="does not give the lists"):
            deploy(right, here)
        monkeypatch.undo()
        with pytest.raises(InputError, match="not evaluated"):
            deploy(right, here, golden_pi=["0.50"], gates=[better_than({"click_recall_20": 0.47})])
        assert here.live_model().version == 1
        assert same_lists(lists(here, some_sessions(vocabulary, 50), vocabulary), before)
        assert ModelRepository(tmp_path / "repository").versions() == [1]


def test_what_a_killed_deployment_leaves_is_no_version(here: InProcessServer, tmp_path: Path) -> None:
    second = write_model(tmp_path / "second", seed=1, version="second")
    killed = tmp_path / "killed"

    def as_a_kill_leaves_it(_: Path, __: Path | None) -> None:
        shutil.copytree(tmp_path / "repository", killed, symlinks=True)
        raise InputError("a gate that is still asked")

    with here, pytest.raises(InputError, match="still asked"):
        deploy(second, here, golden_pi=["0.50"], gates=[as_a_kill_leaves_it])
    repository = ModelRepository(killed)
    assert repository.versions() == [1]
    with InProcessServer(killed) as again:
        with pytest.raises(InputError, match="not kept"):
            rollback(2, again)
        deployed = deploy(second, again, golden_pi=["0.50"], keep=1)
        assert (deployed.version, deployed.previous_version, deployed.pruned) == (2, 1, ())
        assert rollback(None, again).version == 1
        assert rollback(2, again).version == 2  # it has its number now
    assert {path.name for path in repository.folder.iterdir()} == {".lock", "config.pbtxt", "1", "2", "warmup"}


@pytest.mark.slow
@pytest.mark.parametrize(("on_gpu", "rounding"), [(False, torch.int8), (True, torch.bfloat16)])
def test_an_exported_program_with_a_screen_gives_the_lists(
    tmp_path: Path, on_gpu: bool, rounding: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = write_model(tmp_path / "model", own_clicks="added")
    weights = load_file(model_dir / "weights.safetensors")
    save_file({**weights, "own_clicks": torch.tensor([0.3, 0.9])}, model_dir / "weights.safetensors")
    export_version(model_dir, tmp_path / "1", on_gpu=on_gpu)
    asked = list[torch.dtype]()
    monkeypatch.setattr(version_program, "rounding_pays", lambda device, dtype: not asked.append(dtype))
    program = version_program.VersionProgram(str(tmp_path / "1"))
    assert asked == [rounding]
    assert program.chosen == f"screened in {rounding}".replace("torch.", "")
    monkeypatch.undo()
    assert not version_program.rounding_pays(torch.device("cuda"), torch.int8)  # known without one
    expected = InProcessScorer(model_dir)
    for request in golden_requests(expected.live_model(), None, np.array([0.3, 0.7], np.float32), 20):
        clicks = (request.items, request.lengths, request.pi)
        index, scores = program.top_k(
            *map(torch.from_numpy, clicks),
            20,
            torch.zeros(len(request.items), 1, dtype=torch.int64),
            program.all_allowed,
        )
        assert compare_lists(expected.top_k(request), (index.numpy(), scores.numpy())) is None


@pytest.mark.slow
def test_old_versions_are_pruned_but_never_those_that_are_served(here: InProcessServer, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    with here:
        for number in range(2, 5):
            model = write_model(tmp_path / str(number), seed=number, version=str(number))
            last = deploy(model, here, golden_pi=["0.50"], keep=2)
        assert last.pruned == (2,)
        assert repository.versions() == [3, 4]
        rollback(3, here)
        assert repository.prune(keep=1) == []


def test_two_deployments_at_once_are_refused(here: InProcessServer, model_dir: Path) -> None:
    with here, ModelRepository(here.repository).locked(), pytest.raises(InputError, match="under way"):  # type: ignore[arg-type]
        deploy(model_dir, here)
