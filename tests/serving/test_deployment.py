"""Deployments: a correct version is promoted, any other one has no effect."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from multitron_core.errors import InputError
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.sessions.vocabulary import Vocabulary
from serving import deployment
from serving.deployment import deploy, rollback
from serving.export import export_version
from serving.gates import better_than
from serving.in_process import InProcessScorer, InProcessServer
from serving.interface import ONNX_BACKEND
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


def copying(exported: Path, *, alter: bool, with_checksums: bool = False) -> Callable[..., Manifest]:
    """A replacement of `export_version` that copies an exported version.

    Args:
        exported: the version.
        alter: change the weights of the copy.
        with_checksums: make the checksums of the copy match its files.
    """

    def export(model_dir: Path, folder: Path, **options: Any) -> Manifest:
        shutil.copytree(exported, folder)
        manifest, path = read_manifest(folder), folder / "weights.safetensors"
        if alter:
            weights = load_file(path)
            weights["model.norm.bias"] += 0.5
            save_file(weights, path)
        if with_checksums:
            files = {**manifest.files, path.name: file_sha256(str(path))}
            manifest = dataclasses.replace(manifest, files=files)
            (folder / "manifest.json").write_text(json.dumps(manifest.__dict__))
        return manifest

    return export


@pytest.mark.slow
@pytest.mark.usefixtures("triton")
def test_deploy_refuse_promote_and_rollback_on_triton(
    model_dir: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, repository = some_sessions(vocabulary, 300), tmp_path / "repository"
    second_dir = write_model(tmp_path / "second", seed=1, version="second")
    with TritonServer(repository) as server:
        with pytest.raises(InputError, match="no model is deployed"):
            server.live_model()

        first = deploy(model_dir, server, golden_sessions=sessions, golden_pi=["0.00", "1.00"])
        assert (first.version, first.previous_version, first.golden_lists) == (1, None, 2 * 257)
        assert server.live_model().model_version == "first"
        assert server.live_model().vocabulary_hash == vocabulary.hash
        scorer = InProcessScorer(model_dir)
        expected = pl.concat(score_sessions(sessions, "0.50", 5, scorer=scorer, vocabulary=vocabulary))
        assert same_lists(lists(server, sessions, vocabulary), expected)

        # A version with other weights than its model folder is refused while a client scores without an error.
        stop, failures, rounds = threading.Event(), list[Exception](), list[bool]()

        def score_until_stopped() -> None:
            while not stop.wait(0.1):
                try:
                    rounds.append(same_lists(lists(server, sessions, vocabulary), expected))
                except Exception as error:  # noqa: BLE001 - the test reports every kind of error
                    failures.append(error)

        client = threading.Thread(target=score_until_stopped, daemon=True)
        client.start()

        # A correct program exports no wrong version, so the faults are put into copies of the first one.
        exported = ModelRepository(repository).version_folder(1)
        with monkeypatch.context() as patch:
            patch.setattr(deployment, "export_version", copying(exported, alter=True, with_checksums=True))
            with pytest.raises(InputError, match="gives other lists"):
                deploy(model_dir, server, golden_sessions=sessions, golden_pi=["0.50"])
            patch.setattr(deployment, "export_version", copying(exported, alter=True))
            with pytest.raises(InputError, match="checksum"):
                deploy(model_dir, server, golden_sessions=sessions)
            patch.setattr(deployment, "verify_checksums", lambda folder: None)
            with pytest.raises(InputError, match="checksum"):  # the server verifies the checksums too
                deploy(model_dir, server, golden_sessions=sessions)
        assert ModelRepository(repository).versions() == [1]
        during_refusals = list(rounds)

        with TritonServer(repository, urls=server.urls) as remote:  # by the address of the server
            second = deploy(second_dir, remote, golden_sessions=sessions, golden_pi=["0.50"])
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

    # A restarted server serves what was live.
    with TritonServer(repository) as again:
        assert again.live_model().version == 1
        assert same_lists(lists(again, sessions, vocabulary), expected)


@pytest.fixture
def repository_of_onnx(tmp_path: Path, model_dir: Path) -> Path:
    """A repository with one version for onnxruntime, whose export takes a fraction of a second."""
    with InProcessServer(tmp_path / "repository") as server:
        deploy(model_dir, server, golden_pi=["0.50"], backend=ONNX_BACKEND)
    return tmp_path / "repository"


@pytest.fixture
def in_process(repository_of_onnx: Path) -> InProcessServer:
    """A server in this process with one deployed version, for what depends neither on the server nor the backend."""
    return InProcessServer(repository_of_onnx)


def test_deploy_refuses_other_lists_and_a_failing_gate(
    in_process: InProcessServer,
    repository_of_onnx: Path,
    tmp_path: Path,
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = write_model(tmp_path / "other", seed=3, version="other")
    right = write_model(tmp_path / "right", seed=4, version="right")
    export_version(other, tmp_path / "exported", backend=ONNX_BACKEND)
    with in_process:
        before = lists(in_process, some_sessions(vocabulary, 50), vocabulary)
        with monkeypatch.context() as patch:  # as above: a correct program exports no wrong version
            patch.setattr(deployment, "export_version", copying(tmp_path / "exported", alter=False))
            with pytest.raises(InputError, match="gives other lists"):
                deploy(right, in_process)
        gate = better_than({"click_recall_20": 0.47})
        with pytest.raises(InputError, match="not evaluated"):
            deploy(right, in_process, golden_pi=["0.50"], gates=[gate], backend=ONNX_BACKEND)
        assert in_process.live_model().version == 1
        assert same_lists(lists(in_process, some_sessions(vocabulary, 50), vocabulary), before)
    assert ModelRepository(repository_of_onnx).versions() == [1]


def test_deploy_that_is_killed_leaves_no_version(
    in_process: InProcessServer, repository_of_onnx: Path, tmp_path: Path
) -> None:
    second = write_model(tmp_path / "second", seed=1, version="second")
    left = tmp_path / "left"

    def copy_repository(_: Path, __: Path | None) -> None:
        shutil.copytree(repository_of_onnx, left, symlinks=True)  # what a kill during the gates would leave
        raise InputError("refused after the copy")

    with in_process, pytest.raises(InputError, match="refused after the copy"):
        deploy(second, in_process, golden_pi=["0.50"], gates=[copy_repository], backend=ONNX_BACKEND)
    folder = left / "multitron"
    assert {path.name for path in folder.iterdir()} == {".lock", ".staging-2", "config.pbtxt", "1", "warmup"}
    assert ModelRepository(left).versions() == [1]
    with InProcessServer(left) as again:
        with pytest.raises(InputError, match="not kept"):
            rollback(2, again)
        deployed = deploy(second, again, golden_pi=["0.50"], keep=1, backend=ONNX_BACKEND)
        assert (deployed.version, deployed.previous_version, deployed.pruned) == (2, 1, ())
        assert rollback(None, again).version == 1
        assert rollback(2, again).version == 2  # it has its number now
    assert {path.name for path in folder.iterdir()} == {".lock", "config.pbtxt", "1", "2", "warmup"}


def test_deploy_prunes_all_but_the_loaded_versions(
    in_process: InProcessServer, repository_of_onnx: Path, tmp_path: Path
) -> None:
    repository = ModelRepository(repository_of_onnx)
    with in_process:
        for number in range(2, 5):
            model = write_model(tmp_path / str(number), seed=number, version=str(number))
            last = deploy(model, in_process, golden_pi=["0.50"], keep=2, backend=ONNX_BACKEND)
        assert last.pruned == (2,)
        assert repository.versions() == [3, 4]
        rollback(3, in_process)
        assert repository.prune(keep=1) == []


def test_deploy_refuses_a_second_deployment(
    in_process: InProcessServer, repository_of_onnx: Path, model_dir: Path
) -> None:
    locked = ModelRepository(repository_of_onnx).locked()
    with in_process, locked, pytest.raises(InputError, match="under way"):
        deploy(model_dir, in_process)


def test_rollback_loads_a_version_of_another_backend(repository: Path, model_dir: Path) -> None:
    with InProcessServer(repository) as server:
        done = deploy(model_dir, server, golden_pi=["0.25"], backend=ONNX_BACKEND)
        assert (done.version, done.golden_lists) == (2, 257)
        assert server.live_model().backend == ONNX_BACKEND
        config = ModelRepository(repository).read_config()
        assert config is not None
        assert list(config.version_policy.specific.versions) == [2], "a Triton model has one backend"
        rollback(1, server)
        assert server.live_model().backend == "python"


def test_rollback_refuses_a_damaged_version(
    in_process: InProcessServer, repository_of_onnx: Path, model_dir: Path
) -> None:
    with in_process:
        deploy(model_dir, in_process, golden_pi=["0.50"], backend=ONNX_BACKEND)
        (repository_of_onnx / "multitron" / "1" / "model.onnx").write_text("")
        with pytest.raises(InputError, match="the version is damaged"):
            rollback(1, in_process)
        assert in_process.live_model().version == 2


def test_rollback_needs_a_deployment(tmp_path: Path) -> None:
    with InProcessServer(tmp_path / "repository") as server, pytest.raises(InputError, match="nothing is deployed"):
        rollback(None, server)
