"""Deploy a model so that it cannot be half deployed.

The new version is exported beside the live one, loaded under a name of its own, and asked golden questions: the lists
of real sessions at several preferences, whose answers the in-process scorer gave. Only then its folder gets its number,
so that what a killed deployment leaves is no version to roll back to, and `config.pbtxt` names it live. Until that one
rename the old version answers, and a candidate that fails never touches it; after it the old version stays loaded for
clients that began with it.
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

CANDIDATE = "-candidate"  # what the name of a version under examination ends with


@dataclass(frozen=True)
class Deployment:
    """What a deployment or a rollback left live."""

    model_name: str
    version: int
    model_version: str
    vocabulary_hash: str
    previous_version: int | None  # still loaded; what `rollback` goes back to
    golden_lists: int  # lists that were compared
    pruned: tuple[int, ...]  # versions that were removed


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
    """Export, load, verify and promote a model; whatever fails, what was live stays live.

    Args:
        model_dir: a model folder, written by training.
        server: an entered `TritonServer` or `InProcessServer` with a repository.
        golden_sessions: held-out sessions to compare lists of (256 of them are used); None makes random ones.
        golden_pi: the preferences they are compared at, of as many weights as the model has objectives.
        golden_k: items a list.
        gates: what else it must show (see `serving.quality`), asked when the lists agree.
        keep: versions to keep, the live one and the one before it always among them.
        backend: Triton's backend that runs the version: "python" (torch), or "onnxruntime" for a container without it.
        settings: how the server runs the version.
        model_name: the model of the repository.

    Raises:
        InputError: the model folder is not whole, the server cannot load the version, a golden list differs, or a gate
            refuses it. The candidate is unloaded and removed.
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
        except BaseException as error:  # an interrupt too must leave nothing half deployed
            logger.error("version %d of %s is refused: %s", version, model_name, error)
            repository.remove(version)
            raise
        held = _with_live(version, live, repository)
        _promote(repository, server, make_config(repository, live=version, held=held, settings=settings), config)
        return _report(repository, live.version if live else None, lists, repository.prune(keep))


def rollback(version: int | None, server: Server, *, model_name: str = MODEL_NAME) -> Deployment:
    """Make a kept version live again.

    Args:
        version: its number; None means the version that was live before the last deployment.
        server: an entered `TritonServer` or `InProcessServer` with a repository.
        model_name: the model of the repository.

    Raises:
        InputError: nothing is deployed, the version is not kept, or a file of it differs from its checksum.
    """
    repository = _repository(server, model_name)
    with repository.locked():
        config = repository.read_config()
        if config is None:
            raise InputError("nothing is deployed", where=repository.folder, hint="deploy a model first")
        live = live_model_of(config)
        if version is None:
            others = [held for held in config.version_policy.specific.versions if held != live.version]
            version = others[0] if others else None
        if version is None or version not in repository.versions():
            raise InputError(
                "that version is not kept",
                where=repository.folder,
                found=version,
                hint=f"name one of {repository.versions()}",
            )
        folder = repository.version_folder(version)
        verify_checksums(folder)
        held = _with_live(version, live, repository)
        settings = settings_of(config)
        if version not in config.version_policy.specific.versions:
            with _candidate(repository, server, version, folder, settings):
                pass  # a version that does not load changes nothing
        _promote(repository, server, make_config(repository, live=version, held=held, settings=settings), config)
        return _report(repository, live.version if live.version != version else None, 0, [])


def _with_live(version: int, live: LiveModel | None, repository: ModelRepository) -> list[int]:
    """The versions to hold when `version` goes live: the one that is live stays for the clients that began with it.

    A model has one backend in Triton, so a version of another backend cannot stay.
    """
    same = live is not None and live.backend == read_manifest(repository.version_folder(version)).backend
    return sorted({version, live.version}) if live is not None and same else [version]


def _repository(server: Server, model_name: str) -> ModelRepository:
    if server.repository is None:
        raise InputError(
            "a deployment needs the model repository that the server reads",
            where=", ".join(server.urls),
            hint="give repository= (the same folder as the server's) to TritonServer",
        )
    return ModelRepository(server.repository, model_name)


def _promote(
    repository: ModelRepository, server: Server, promoted: pb.ModelConfig, before: pb.ModelConfig | None
) -> None:
    """Make a configuration the live one, on disk and on the server; or neither."""
    repository.write_config(promoted)
    try:
        server.load(repository.model_name)
    except BaseException:
        if before is None:
            (repository.folder / "config.pbtxt").unlink()
        else:
            repository.write_config(before)
        raise


@contextmanager
def _candidate(
    repository: ModelRepository, server: Server, version: int, folder: Path, settings: InstanceSettings
) -> Iterator[Scorer]:
    """A version loaded under a name of its own, so that whatever happens to it leaves the live model alone."""
    name = f"{repository.model_name}{CANDIDATE}"
    aside = ModelRepository(repository.root, name)
    shutil.rmtree(aside.folder, ignore_errors=True)  # of a deployment that was killed
    aside.folder.mkdir()
    try:
        beside = Path("..") / repository.model_name
        (aside.folder / str(version)).symlink_to(beside / folder.name)
        (aside.folder / "warmup").symlink_to(beside / "warmup")
        server.load(name, config=make_config(aside, live=version, held=[version], settings=settings))
        try:
            yield server.scorer(model_name=name)
        finally:
            server.unload(name)
    finally:
        shutil.rmtree(aside.folder, ignore_errors=True)


def _verify(
    model_dir: Path | str,
    found_scorer: Scorer,
    sessions: EncodedSessions | None,
    pis: Sequence[str],
    k: int,
) -> int:
    """Ask the loaded version and the in-process scorer the golden questions; returns the number of lists compared."""
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
                    "the loaded model does not give the lists of the model folder",
                    where=f"{candidate.model_name} version {candidate.version}, pi {pi}",
                    found=difference,
                    hint="export again; if it happens again, the server's torch differs from this one",
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
