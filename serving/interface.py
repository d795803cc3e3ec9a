"""The interface that Triton and the in-process scorer share: requests, model metadata, scorers and servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError

PYTHON_BACKEND, ONNX_BACKEND = "python", "onnxruntime"
"""Names of the Triton backends that can run a version."""


@dataclass(frozen=True)
class LiveModel:
    """Metadata of a deployed model, as the server reports it."""

    model_name: str
    version: int  # version number in the Triton repository
    model_version: str  # "version" of the model folder's config.json
    vocabulary_hash: str
    items: int  # items of the vocabulary
    max_length: int  # clicks per session that the model reads; earlier ones are cut
    objectives: int = 2  # weights per preference
    backend: str = PYTHON_BACKEND  # Triton backend that runs it


@dataclass(frozen=True, eq=False)
class ScoringRequest:
    """One batch of sessions.

    Args:
        items: int64 [sessions, steps], 1-based indices, 0 after the end of a session.
        lengths: int64 [sessions], clicks per session, 1 to steps.
        pi: preferences, float32 [sessions, objectives].
        k: items per list.
        excluded: int64 [sessions, width >= 1], distinct 1-based indices that the session's list must not contain, 0
            for none; None excludes nothing.
        assortment: bool [items], true for items that lists may contain; None allows all.
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
    """Answers scoring requests. `top_k` must be safe to call from several threads at once."""

    def live_model(self) -> LiveModel:
        """The live model."""

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        """Score one batch of sessions with one version.

        Args:
            request: the sessions, their preferences and the items per list.
            model: the version to use.

        Returns:
            Item indices int32 [sessions, k] (1-based) and scores float32 [sessions, k], best first.

        Raises:
            InputError: the model cannot answer the request.
            UnavailableError: the scorer does not answer.
        """


class Server(Protocol):
    """Serves deployed versions: `TritonServer` or `InProcessServer`."""

    repository: Path | None  # model repository; None where only scoring is possible
    urls: tuple[str, ...]  # addresses, for messages

    def load(self, model_name: str, *, config: pb.ModelConfig | None = None) -> None:
        """Load or reload a model; `config` replaces the repository's `config.pbtxt`."""

    def unload(self, model_name: str) -> None:
        """Unload a model."""

    def scorer(self, *, model_name: str = ...) -> Scorer:
        """A scorer for the model."""

    def live_model(self, *, model_name: str = ...) -> LiveModel:
        """Metadata of the live version of the model."""


def check_k(k: int, items: int) -> None:
    """Check that the vocabulary can fill a list of k items.

    Args:
        k: items per list.
        items: items of the vocabulary.

    Raises:
        InputError: k < 1 or k > items.
    """
    if not 1 <= k <= items:
        raise InputError("k lies outside the vocabulary", where="k", found=k, hint=f"use 1 to {items}")
