"""Scoring without a Triton server: for golden answers and parity, and where the Triton binary does not run.

`InProcessScorer` runs a model folder as it is, in fp32 throughout; `InProcessServer` runs the deployed versions of a
repository. Both say in the log that no Triton server is used.
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
        device: where the model runs.
        score_memory_mib: bound of the scores that are held at a time.

    Raises:
        InputError: the model folder is not whole.
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
        """The model of the folder; its version number is 0."""
        return self._live

    @torch.inference_mode()
    def top_k(self, request: ScoringRequest, model: LiveModel | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Item indices int32 [sessions, k] and scores float32 [sessions, k], best first.

        Raises:
            InputError: k lies outside the vocabulary.
        """
        check_k(request.k, self._live.items)
        tensors = [tensor.to(self._device) for tensor in _tensors(request)]
        allowed = _allowed(request, self._live.items).to(self._device)
        at_once = max(1, (self._memory << 20) // (4 * min(self._program.block_items, self._live.items)))
        parts = []
        for start in range(0, len(request.items), at_once):
            items, lengths, pi, excluded = (tensor[start : start + at_once] for tensor in tensors)
            index, scores = self._program(items, lengths, pi, request.k, excluded, allowed)
            parts.append((index.cpu().numpy(), scores.cpu().numpy()))
        return np.concatenate([index for index, _ in parts]), np.concatenate([scores for _, scores in parts])


class InProcessServer:
    """Context manager with the interface of `TritonServer`: serves the deployed versions of a repository from here.

    Args:
        repository: the Triton model repository, a folder; made when it is missing.
        device: where the programs of torch run.
        score_memory_mib: bound of the scores that are held at a time.
    """

    def __init__(self, repository: Path | str, *, device: str = "cpu", score_memory_mib: int = 256) -> None:
        self.repository: Path | None = Path(repository).absolute()
        self.urls: tuple[str, ...] = ("in-process",)
        self._device, self._memory = device, score_memory_mib
        self._configs: dict[str, pb.ModelConfig] = {}
        self._programs: dict[tuple[str, int], _Answer] = {}

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
        """Load the versions that the configuration names, default the repository's `config.pbtxt`; drop the others.

        Raises:
            InputError: a version cannot be read or differs from its checksums.
        """
        assert self.repository is not None
        repository = ModelRepository(self.repository, model_name)
        config = config or repository.read_config()
        if config is None:
            raise InputError("no model is deployed", where=repository.folder, hint="deploy one")
        held = list(config.version_policy.specific.versions)
        programs = {
            (model_name, version): self._programs.get((model_name, version))
            or _load_version(repository.version_folder(version), config.backend, self._device, self._memory)
            for version in held
        }
        self.unload(model_name)
        self._programs.update(programs)
        self._configs[model_name] = config

    def unload(self, model_name: str) -> None:
        """Drop a model."""
        self._configs.pop(model_name, None)
        for key in [key for key in self._programs if key[0] == model_name]:
            del self._programs[key]

    def scorer(self, *, model_name: str = MODEL_NAME) -> _VersionScorer:
        """Who answers scoring requests."""
        return _VersionScorer(self, model_name)

    def live_model(self, *, model_name: str = MODEL_NAME) -> LiveModel:
        """Which model is live.

        Raises:
            InputError: no model is deployed.
        """
        if model_name not in self._configs:
            raise InputError("no model is deployed", where=f"{model_name} in {self.repository}", hint="deploy one")
        return live_model_of(self._configs[model_name])

    def answer(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        """As `Scorer.top_k`."""
        check_k(request.k, model.items)
        try:
            program = self._programs[model.model_name, model.version]
        except KeyError as error:
            raise UnavailableError(
                "the deployed version is not served any more",
                where=f"{model.model_name} version {model.version}",
                hint="start the run again: it will use the version that is live then",
            ) from error
        return program(request, model)


class _VersionScorer:
    """The scorer of one model of an `InProcessServer`."""

    def __init__(self, server: InProcessServer, model_name: str) -> None:
        self._server, self._model_name = server, model_name

    def live_model(self) -> LiveModel:
        return self._server.live_model(model_name=self._model_name)

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        return self._server.answer(request, model)


_Answer = Callable[[ScoringRequest, LiveModel], tuple[np.ndarray, np.ndarray]]


def _load_version(folder: Path, backend: str, device: str, score_memory_mib: int) -> _Answer:
    try:
        if backend == ONNX_BACKEND:
            return _with_onnxruntime(folder)
        return _with_torch(folder, device, score_memory_mib)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            "the version cannot be loaded", where=folder, found=str(error), hint="deploy the model again"
        ) from error


def _with_torch(folder: Path, device: str, score_memory_mib: int) -> _Answer:
    program = VersionProgram(str(folder), device=device, score_memory_mib=score_memory_mib)

    def answer(request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        clicks, lengths, pi, excluded = _tensors(request)
        allowed = _allowed(request, program.items).to(program.device)
        index, scores = program.top_k(clicks, lengths, pi, request.k, excluded, allowed)
        return index.numpy(), scores.numpy()

    return answer


def _with_onnxruntime(folder: Path) -> _Answer:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "the ONNX variant runs here with the package onnxruntime",
            found=str(error),
            hint="pip install 'multitron-batch[onnx]'",
        ) from error
    check_files(str(folder))
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])

    def answer(request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        inputs, _ = request_tensors(request, model)
        index, scores = session.run(["item_index", "score"], inputs)
        return index, scores

    return answer


def _tensors(request: ScoringRequest) -> list[Tensor]:
    """Items, lengths, pi and exclusions."""
    arrays = (request.items, request.lengths, request.pi, request.excluded_or_none())
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def _allowed(request: ScoringRequest, items: int) -> Tensor:
    allowed = torch.zeros(items)
    if request.assortment is not None:
        allowed.masked_fill_(~torch.from_numpy(request.assortment), float("-inf"))
    return allowed
