"""Deploy a model atomically, or roll back to an earlier version.

1. Export the new version to a staging folder in the repository.
2. Load it under a separate name, as a candidate.
3. Compare its lists with those of the in-process scorer, by golden requests: held-out sessions at several preferences.
4. Run the quality gates.
5. Rename the staging folder to the version number, then replace `config.pbtxt`, which makes the version live.

The previous version answers until `config.pbtxt` is replaced; a failing candidate never touches it. Afterwards the
previous version stays loaded for clients that started with it. A killed deployment leaves a staging folder only, which
is not a version that `rollback` accepts.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError
from multitron_core.preference.keys import DEFAULT_GRID, preference
from multitron_core.sessions.encoded import EncodedSessions
from serving.export import export_version, verify_checksums
from serving.gates import Gate
from serving.golden import compare_lists, golden_requests
from serving.in_process import InProcessScorer
from serving.interface import PYTHON_BACKEND, LiveModel, Scorer, Server
from serving.manifest import read_manifest
from serving.repository import (
    DEFAULT_SETTINGS,
    MODEL_NAME,
    InstanceSettings,
    ModelRepository,
    live_model_of,
    make_config,
    settings_of,
    write_warmup,
)

logger = logging.getLogger(__name__)

CANDIDATE = "-candidate"
"""Suffix of the model name under which a version is verified."""


@dataclass(frozen=True)
class Deployment:
    """Result of a deployment or a rollback: the live version."""

    model_name: str
    version: int
    model_version: str
    vocabulary_hash: str
    previous_version: int | None  # stays loaded; the default target of `rollback`
    golden_lists: int  # number of lists compared; 0 for a rollback
    pruned: tuple[int, ...]  # versions removed from the repository


def deploy(
    model_dir: Path | str,
    server: Server,
    *,
    golden_sessions: EncodedSessions | None = None,
    golden_pi: Sequence[str] = DEFAULT_GRID,
    golden_k: int = 20,
    gates: Sequence[Gate] = (),
    keep: int = 3,
    backend: str = PYTHON_BACKEND,
    settings: InstanceSettings = DEFAULT_SETTINGS,
    model_name: str = MODEL_NAME,
) -> Deployment:
    """Export, load, verify and promote a model. On any failure the live version stays live.

    Args:
        model_dir: a model folder, written by training.
        server: an entered `TritonServer` or `InProcessServer` with a repository.
        golden_sessions: held-out sessions whose lists are compared; at most 256 are used. None uses random sessions.
        golden_pi: preference keys at which lists are compared, with one weight per objective of the model.
        golden_k: items per list, capped at the number of items in the vocabulary.
        gates: quality gates (see `serving.gates`), called after the lists have been compared.
        keep: number of versions to keep. The live version and the previous one are never removed.
        backend: Triton backend that runs the version: "python" (torch), or "onnxruntime" for a container without torch.
        settings: instances, threads, memory and batching of the version on the server.
        model_name: the model in the repository.

    Returns:
        The live version, the previous one, the number of lists compared and the versions removed.

    Raises:
        InputError: the model folder is incomplete, another deployment runs, the server cannot load the version, a
            golden list differs, or a gate refuses the version. The candidate is unloaded and removed.
        UnavailableError: the server does not answer.
    """
    repository = _repository(server, model_name)
    with repository.locked():
        config = repository.read_config()
        live = live_model_of(config) if config else None
        version = max(repository.versions(), default=0) + 1
        folder = repository.candidate_folder(version)
        try:
            manifest = export_version(model_dir, folder, backend=backend, on_gpu=settings.on_gpu)
            write_warmup(repository, version, manifest)
            verify_checksums(folder)
            with _candidate(repository, server, version, folder, settings) as scorer:
                lists = _verify(model_dir, scorer, golden_sessions, golden_pi, golden_k)
            for gate in gates:
                gate(folder, repository.version_folder(live.version) if live else None)
            folder.rename(repository.version_folder(version))
        except BaseException as error:  # an interrupt must leave no candidate either
            logger.error("version %d of %s is refused: %s", version, model_name, error)
            repository.remove(version)
            raise
        loaded = _with_live(version, live, repository)
        _promote(repository, server, make_config(repository, live=version, loaded=loaded, settings=settings), config)
        return _report(repository, live.version if live else None, lists, repository.prune(keep))


def rollback(version: int | None, server: Server, *, model_name: str = MODEL_NAME) -> Deployment:
    """Make a kept version live again.

    Args:
        version: its number; None selects the version that was live before the last deployment.
        server: an entered `TritonServer` or `InProcessServer` with a repository.
        model_name: the model in the repository.

    Returns:
        The live version and the one that was live before this call.

    Raises:
        InputError: nothing is deployed, the version is not kept, a file differs from its checksum, or another
            deployment runs.
        UnavailableError: the server does not answer.
    """
    repository = _repository(server, model_name)
    with repository.locked():
        config = repository.read_config()
        if config is None:
            raise InputError("nothing is deployed", where=repository.folder, hint="deploy a model first")
        live = live_model_of(config)
        if version is None:
            others = [loaded for loaded in config.version_policy.specific.versions if loaded != live.version]
            version = others[0] if others else None
        if version is None or version not in repository.versions():
            raise InputError(
                "the version is not kept",
                where=repository.folder,
                found=version,
                hint=f"name one of {repository.versions()}",
            )
        folder = repository.version_folder(version)
        verify_checksums(folder)
        loaded = _with_live(version, live, repository)
        settings = settings_of(config)
        if version not in config.version_policy.specific.versions:
            with _candidate(repository, server, version, folder, settings):
                pass  # a version that cannot be loaded raises here, before the live version is touched
        _promote(repository, server, make_config(repository, live=version, loaded=loaded, settings=settings), config)
        return _report(repository, live.version if live.version != version else None, 0, [])


def _with_live(version: int, live: LiveModel | None, repository: ModelRepository) -> list[int]:
    """The versions to load when `version` goes live: also the live one, for clients that started with it.

    A Triton model has one backend, so a live version of another backend cannot stay loaded.
    """
    same_backend = live is not None and live.backend == read_manifest(repository.version_folder(version)).backend
    return sorted({version, live.version}) if live is not None and same_backend else [version]


def _repository(server: Server, model_name: str) -> ModelRepository:
    if server.repository is None:
        raise InputError(
            "a deployment needs the model repository that the server reads",
            where=", ".join(server.urls),
            hint="give repository= (the same folder as the server's) to TritonServer",
        )
    return ModelRepository(server.repository, model_name)


def _promote(
    repository: ModelRepository, server: Server, promoted: pb.ModelConfig, previous: pb.ModelConfig | None
) -> None:
    """Make a configuration live on disk and on the server; on failure restore the previous one on disk."""
    repository.write_config(promoted)
    try:
        server.load(repository.model_name)
    except BaseException:
        if previous is None:
            (repository.folder / "config.pbtxt").unlink()
        else:
            repository.write_config(previous)
        raise


@contextmanager
def _candidate(
    repository: ModelRepository, server: Server, version: int, folder: Path, settings: InstanceSettings
) -> Iterator[Scorer]:
    """A version loaded under a separate model name, so that its failure cannot affect the live model."""
    name = f"{repository.model_name}{CANDIDATE}"
    candidate = ModelRepository(repository.root, name)
    shutil.rmtree(candidate.folder, ignore_errors=True)  # left by a killed deployment
    candidate.folder.mkdir()
    try:
        live_folder = Path("..") / repository.model_name
        (candidate.folder / str(version)).symlink_to(live_folder / folder.name)
        (candidate.folder / "warmup").symlink_to(live_folder / "warmup")
        server.load(name, config=make_config(candidate, live=version, loaded=[version], settings=settings))
        try:
            yield server.scorer(model_name=name)
        finally:
            server.unload(name)
    finally:
        shutil.rmtree(candidate.folder, ignore_errors=True)


def _verify(
    model_dir: Path | str,
    found_scorer: Scorer,
    sessions: EncodedSessions | None,
    pis: Sequence[str],
    k: int,
) -> int:
    """Compare the loaded version with the in-process scorer by golden requests.

    Returns:
        The number of lists compared.

    Raises:
        InputError: a list differs.
    """
    expected_scorer = InProcessScorer(model_dir)
    live = expected_scorer.live_model()
    candidate = found_scorer.live_model()
    lists = 0
    for pi in pis:
        for request in golden_requests(
            live, sessions, np.array(preference(pi, live.objectives), np.float32), min(k, live.items)
        ):
            expected = expected_scorer.top_k(request)
            found = found_scorer.top_k(request, candidate)
            difference = compare_lists(expected, found)
            if difference:
                raise InputError(
                    "the loaded version gives other lists than the model folder",
                    where=f"{candidate.model_name} version {candidate.version}, pi {pi}",
                    found=difference,
                    hint="deploy again; if lists still differ, check that the server has the same torch version",
                )
            lists += len(request.items)
    return lists


def _report(repository: ModelRepository, previous: int | None, lists: int, pruned: list[int]) -> Deployment:
    config = repository.read_config()
    assert config is not None
    live = live_model_of(config)
    logger.info("version %d of %s is live (model %s)", live.version, live.model_name, live.model_version)
    return Deployment(
        live.model_name, live.version, live.model_version, live.vocabulary_hash, previous, lists, tuple(pruned)
    )
