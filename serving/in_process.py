"""Scoring in this process, for golden requests, tests and machines without a Triton binary.

`InProcessScorer` runs a model folder, in fp32 throughout. `InProcessServer` runs the deployed versions of a repository.
Both log a warning that no Triton server is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError, UnavailableError
from multitron_core.model.folder import load_model
from serving.export import model_identity
from serving.interface import ONNX_BACKEND, LiveModel, ScoringRequest, check_k
from serving.manifest import ONNX_FILE
from serving.repository import MODEL_NAME, ModelRepository, live_model_of
from serving.scoring_program import ScoringProgram
from serving.triton_scorer import request_tensors
from serving.version_program import VersionProgram, check_files

logger = logging.getLogger(__name__)


class InProcessScorer:
    """Answers scoring requests with the model of a model folder, in this process.

    Args:
        model_dir: a model folder, written by training.
        device: torch device that runs the model.
        score_memory_mib: memory limit for the scores of one matrix product, in MiB.

    Raises:
        InputError: the model folder is incomplete.
    """

    def __init__(self, model_dir: Path | str, *, device: str = "cpu", score_memory_mib: int = 256) -> None:
        model = load_model(model_dir, device)
        model_version, vocabulary_hash = model_identity(Path(model_dir))
        self._live = LiveModel(
            model_name="in-process",
            version=0,
            model_version=model_version,
            vocabulary_hash=vocabulary_hash,
            items=model.config.items,
            max_length=model.config.max_length,
            objectives=len(model.config.objectives),
        )
        self._device, self._memory = torch.device(device), score_memory_mib
        self._program = ScoringProgram(model).eval()
        logger.warning("scoring in this process, without a Triton server: model folder %s", model_dir)

    def live_model(self) -> LiveModel:
        """Metadata of the model; its version number is 0."""
        return self._live

    @torch.inference_mode()
    def top_k(self, request: ScoringRequest, model: LiveModel | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Scorer.top_k`; `model` is ignored, since the folder has one version.

        Raises:
            InputError: k < 1 or k exceeds the items of the vocabulary.
        """
        check_k(request.k, self._live.items)
        tensors = [tensor.to(self._device) for tensor in _tensors(request)]
        allowed = _allowed(request, self._live.items).to(self._device)
        batch = max(1, (self._memory << 20) // (4 * min(self._program.block_items, self._live.items)))
        parts = []
        for start in range(0, len(request.items), batch):
            items, lengths, pi, excluded = (tensor[start : start + batch] for tensor in tensors)
            index, scores = self._program(items, lengths, pi, request.k, excluded, allowed)
            parts.append((index.cpu().numpy(), scores.cpu().numpy()))
        return np.concatenate([index for index, _ in parts]), np.concatenate([scores for _, scores in parts])


class InProcessServer:
    """Context manager with the interface of `TritonServer` that serves the deployed versions in this process.

    Args:
        repository: the Triton model repository, a folder; created when it is missing.
        device: torch device that runs versions of the python backend. Versions of the onnxruntime backend run on the
            CPU.
        score_memory_mib: memory limit for the scores of one matrix product, in MiB.
    """

    def __init__(self, repository: Path | str, *, device: str = "cpu", score_memory_mib: int = 256) -> None:
        self.repository: Path | None = Path(repository).absolute()
        self.urls: tuple[str, ...] = ("in-process",)
        self._device, self._memory = device, score_memory_mib
        self._configs: dict[str, pb.ModelConfig] = {}
        self._programs: dict[tuple[str, int], _TopK] = {}

    def __enter__(self) -> InProcessServer:
        assert self.repository is not None
        self.repository.mkdir(parents=True, exist_ok=True)
        logger.warning("scoring in this process, without a Triton server: repository %s", self.repository)
        for config in sorted(self.repository.glob("*/config.pbtxt")):
            self.load(config.parent.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._configs.clear()
        self._programs.clear()

    def load(self, model_name: str, *, config: pb.ModelConfig | None = None) -> None:
        """Load the versions that the configuration names and unload the others.

        Args:
            model_name: the model in the repository.
            config: a model configuration; None reads the repository's `config.pbtxt`.

        Raises:
            InputError: no model is deployed, or a version cannot be loaded or differs from its checksums.
        """
        assert self.repository is not None
        repository = ModelRepository(self.repository, model_name)
        config = config or repository.read_config()
        if config is None:
            raise InputError("no model is deployed", where=repository.folder, hint="deploy a model first")
        programs = {
            (model_name, version): self._programs.get((model_name, version))
            or _load_version(repository.version_folder(version), config.backend, self._device, self._memory)
            for version in config.version_policy.specific.versions
        }
        self.unload(model_name)
        self._programs.update(programs)
        self._configs[model_name] = config

    def unload(self, model_name: str) -> None:
        """Unload a model."""
        self._configs.pop(model_name, None)
        for key in [key for key in self._programs if key[0] == model_name]:
            del self._programs[key]

    def scorer(self, *, model_name: str = MODEL_NAME) -> _VersionScorer:
        """A scorer for the model."""
        return _VersionScorer(self, model_name)

    def live_model(self, *, model_name: str = MODEL_NAME) -> LiveModel:
        """Metadata of the live version of the model.

        Raises:
            InputError: no model is deployed.
        """
        if model_name not in self._configs:
            raise InputError(
                "no model is deployed", where=f"{model_name} in {self.repository}", hint="deploy a model first"
            )
        return live_model_of(self._configs[model_name])

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        """As `Scorer.top_k`.

        Raises:
            InputError: k < 1 or k exceeds the items of the vocabulary.
            UnavailableError: the version is not loaded any more.
        """
        check_k(request.k, model.items)
        try:
            program = self._programs[model.model_name, model.version]
        except KeyError as error:
            raise UnavailableError(
                "the deployed version is not served any more",
                where=f"{model.model_name} version {model.version}",
                hint="start the run again; it will use the version that is live then",
            ) from error
        return program(request, model)


class _VersionScorer:
    """Scorer for one model of an `InProcessServer`."""

    def __init__(self, server: InProcessServer, model_name: str) -> None:
        self._server, self._model_name = server, model_name

    def live_model(self) -> LiveModel:
        return self._server.live_model(model_name=self._model_name)

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        return self._server.top_k(request, model)


_TopK = Callable[[ScoringRequest, LiveModel], tuple[np.ndarray, np.ndarray]]


def _load_version(folder: Path, backend: str, device: str, score_memory_mib: int) -> _TopK:
    try:
        if backend == ONNX_BACKEND:
            return _load_onnx(folder)
        return _load_torch(folder, device, score_memory_mib)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            "the version cannot be loaded", where=folder, found=str(error), hint="deploy the model again"
        ) from error


def _load_torch(folder: Path, device: str, score_memory_mib: int) -> _TopK:
    program = VersionProgram(str(folder), device=device, score_memory_mib=score_memory_mib)

    def top_k(request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        clicks, lengths, pi, excluded = _tensors(request)
        allowed = _allowed(request, program.items).to(program.device)
        index, scores = program.top_k(clicks, lengths, pi, request.k, excluded, allowed)
        return index.numpy(), scores.numpy()

    return top_k


def _load_onnx(folder: Path) -> _TopK:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "versions of the onnxruntime backend need the package onnxruntime in this process",
            found=str(error),
            hint="pip install 'multitron-batch[onnx]'",
        ) from error
    check_files(str(folder))
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])

    def top_k(request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        inputs, _ = request_tensors(request, model)
        index, scores = session.run(["item_index", "score"], inputs)
        return index, scores

    return top_k


def _tensors(request: ScoringRequest) -> list[Tensor]:
    """Items, lengths, pi and excluded of a request, as tensors that share memory with its arrays."""
    arrays = (request.items, request.lengths, request.pi, request.excluded_or_none())
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def _allowed(request: ScoringRequest, items: int) -> Tensor:
    """The assortment of a request, float32 [items]: 0 for allowed items and -inf for the others."""
    allowed = torch.zeros(items)
    if request.assortment is not None:
        allowed.masked_fill_(~torch.from_numpy(request.assortment), float("-inf"))
    return allowed
