"""What a scorer is asked and what it says of itself: the interface that Triton and the in-process scorer share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError

PYTHON_BACKEND, ONNX_BACKEND = "python", "onnxruntime"


@dataclass(frozen=True)
class LiveModel:
    """The model that answers: what a metadata call gives."""

    model_name: str
    version: int  # version number in the Triton repository
    model_version: str  # "version" of the model folder's config.json
    vocabulary_hash: str
    items: int
    max_length: int  # clicks that the model reads
    objectives: int = 2  # weights of a preference
    backend: str = PYTHON_BACKEND  # Triton's backend that runs it


@dataclass(frozen=True, eq=False)
class ScoringRequest:
    """One batch of sessions.

    Args:
        items: int64 [sessions, steps], 1-based indices, 0 behind a session's end.
        lengths: int64 [sessions], clicks a session, 1 to steps.
        pi: float32 [sessions, objectives].
        k: items a list.
        excluded: int64 [sessions, width >= 1], distinct indices that a session's list must not hold, 0 for none; None
            excludes nothing.
        assortment: bool [items], true for an item that lists may hold; None allows all.
    """

    items: np.ndarray
    lengths: np.ndarray
    pi: np.ndarray
    k: int
    excluded: np.ndarray | None = None
    assortment: np.ndarray | None = field(default=None, repr=False)

    def excluded_or_none(self) -> np.ndarray:
        """`excluded`, or zeros [sessions, 1] where it is None."""
        return np.zeros((len(self.items), 1), np.int64) if self.excluded is None else self.excluded


class Scorer(Protocol):
    """Whoever answers scoring requests. `top_k` is called from several threads at once."""

    def live_model(self) -> LiveModel:
        """The model that counts as deployed."""

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        """Item indices int32 [sessions, k] and scores float32 [sessions, k] of that version, best first.

        Raises:
            InputError: a request that the model cannot answer.
            UnavailableError: no answer now.
        """


class Server(Protocol):
    """Who holds deployed versions: `TritonServer` or `InProcessServer`."""

    repository: Path | None
    urls: tuple[str, ...]

    def load(self, model_name: str, *, config: pb.ModelConfig | None = None) -> None:
        """Load or reload a model; `config` stands in for the repository's `config.pbtxt`."""

    def unload(self, model_name: str) -> None:
        """Drop a model."""

    def scorer(self, *, model_name: str) -> Scorer:
        """Who answers scoring requests."""

    def live_model(self, *, model_name: str) -> LiveModel:
        """Which model is live."""


def check_k(k: int, items: int) -> None:
    """Refuse a list length that the vocabulary cannot fill.

    Raises:
        InputError: k < 1 or k > items.
    """
    if not 1 <= k <= items:
        raise InputError("k lies outside the vocabulary", where="k", found=k, hint=f"use 1 to {items}")
