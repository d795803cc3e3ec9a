"""Scoring requests over gRPC to one or several servers, with retries while a server is unavailable."""

from __future__ import annotations

import base64
import itertools
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from multitron_core.errors import InputError, UnavailableError
from serving.interface import ONNX_BACKEND, LiveModel, ScoringRequest
from serving.repository import MODEL_NAME, live_model_of

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""Timeout of health and metadata calls, in seconds. A suspended process would never answer."""

REST_SECONDS = 30.0
"""Seconds for which a server that did not answer is skipped while another one answers."""

_TYPES = {
    np.dtype(np.int64): "INT64",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float32): "FP32",
    np.dtype(np.uint8): "UINT8",
}


class TritonScorer:
    """Answers scoring requests with a deployed model; safe to call from several threads.

    Scoring changes nothing on the server, so a request without an answer is sent again, to the next server. The server
    that did not answer is skipped for `REST_SECONDS`, because every attempt may take as long as the request timeout.

    Args:
        urls: gRPC addresses of servers of the same repository.
        client: returns the client of an address.
        model_name: the model in the repository.
        timeout: seconds per request.
        patience: seconds during which a request without an answer is retried.
    """

    def __init__(
        self,
        urls: Sequence[str],
        client: Callable[[str], triton.InferenceServerClient],
        *,
        model_name: str = MODEL_NAME,
        timeout: float = 300.0,
        patience: float = 20.0,
    ) -> None:
        self._urls, self._client, self._model_name = tuple(urls), client, model_name
        self._timeout, self._patience = timeout, patience
        self._turn = itertools.count()
        self._rests_until: dict[str, float] = {}  # by address, in seconds of the monotonic clock

    def live_model(self) -> LiveModel:
        """Metadata of the live version, from the first server that answers.

        Raises:
            InputError: no model is deployed, or it was not deployed by this project.
            UnavailableError: no server answers.
        """
        for url in self._urls:
            try:
                answer = self._client(url).get_model_config(self._model_name, client_timeout=ANSWER_SECONDS)
                return live_model_of(answer.config)
            except InferenceServerException as error:
                # Triton's status is UNAVAILABLE for an unknown model, too.
                if not is_unavailable(error) or "unknown model" in error.message():
                    raise InputError(
                        "no model is deployed",
                        where=f"{self._model_name} on {url}",
                        found=error.message(),
                        hint="deploy a model first",
                    ) from error
                last = error
        raise UnavailableError(
            "the Triton server does not answer", where=", ".join(self._urls), found=str(last)
        ) from last

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        """As `Scorer.top_k`.

        Raises:
            InputError: the server refuses the request.
            UnavailableError: no server answers within the patience, no server has the version loaded any more, or the
                process that runs the model has ended.
        """
        inputs, parameters = request_tensors(request, model)
        tensors = [_tensor(name, array) for name, array in inputs.items()]
        result = self._send(tensors, str(model.version), parameters)
        index, scores = result.as_numpy("item_index"), result.as_numpy("score")
        assert index is not None  # the configuration has both outputs
        assert scores is not None
        return index, scores

    def _send(
        self, tensors: list[triton.InferInput], version: str, parameters: dict[str, str] | None
    ) -> triton.InferResult:
        deadline = time.monotonic() + self._patience
        pause = 0.1
        without = set[str]()  # servers without the version; one that has just started may still load it
        while True:
            url = self._next_url()
            try:
                return self._client(url).infer(
                    self._model_name,
                    tensors,
                    model_version=version,
                    client_timeout=self._timeout,
                    parameters=parameters,
                )
            except InferenceServerException as error:
                gone, ended = error.status() == "StatusCode.NOT_FOUND", _has_ended(error)
                if not (gone or ended or is_unavailable(error)):
                    raise InputError(
                        "the Triton server refuses the request", where=url, found=error.message()
                    ) from error
                self._rests_until[url] = time.monotonic() + REST_SECONDS
                if gone:
                    without.add(url)
                if without.issuperset(self._urls) or time.monotonic() > deadline:
                    what, hint = "the Triton server does not answer", "start the run again"
                    if gone:
                        what, hint = "the deployed version is not served any more", f"{hint}; it will use the live one"
                    if ended:
                        what = "the process of the model has ended on the Triton server"
                        hint = f"see the server's log, restart a server that is given by URL, then {hint}"
                    where = f"{self._model_name} version {version} on {url}"
                    raise UnavailableError(what, where=where, found=error.message(), hint=hint) from error
                logger.info("no answer from %s (%s); retrying in %.1f s", url, error.message(), pause)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _next_url(self) -> str:
        """The next server in turn. A skipped one is returned only if all are skipped."""
        first = next(self._turn)
        in_turn = [self._urls[(first + step) % len(self._urls)] for step in range(len(self._urls))]
        now = time.monotonic()
        return next((url for url in in_turn if self._rests_until.get(url, now) <= now), in_turn[0])


def request_tensors(request: ScoringRequest, model: LiveModel) -> tuple[dict[str, np.ndarray], dict[str, str] | None]:
    """The input tensors and parameters of a request, in the form of the model's backend.

    The python backend reads an assortment from a request parameter, because an input would have one row per session.
    onnxruntime reads no parameters and needs every input.

    Args:
        request: the request.
        model: the version that will answer; its backend and number of items are used.

    Returns:
        Arrays by input name, and the request parameters (None for no parameters).
    """
    sessions = len(request.items)
    inputs: dict[str, np.ndarray] = {
        "items": np.ascontiguousarray(request.items, np.int64),
        "lengths": np.ascontiguousarray(request.lengths, np.int64)[:, None],
        "pi": np.ascontiguousarray(request.pi, np.float32),
        "k": np.full((sessions, 1), request.k, np.int32),
    }
    if model.backend == ONNX_BACKEND:
        allowed = np.ones(model.items, bool) if request.assortment is None else request.assortment
        excluded = np.ascontiguousarray(request.excluded_or_none(), np.int64)
        return {**inputs, "excluded": excluded, "assortment": pack_assortment(allowed)}, None
    if request.excluded is not None:
        inputs["excluded"] = np.ascontiguousarray(request.excluded, np.int64)
    if request.assortment is None:
        return inputs, None
    return inputs, {"assortment": base64.b64encode(pack_assortment(request.assortment).tobytes()).decode()}


def is_unavailable(error: InferenceServerException) -> bool:
    """Whether a gRPC error is temporary, so that the same request may be sent again."""
    return error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")


def _has_ended(error: InferenceServerException) -> bool:
    """Whether the process that runs a python model has ended, for example killed when memory ran out.

    Triton 2.51 then answers INTERNAL and does not restart the process. Another server, or a restarted one, can answer.
    """
    return "Stub process" in error.message() and "not healthy" in error.message()


def pack_assortment(assortment: np.ndarray) -> np.ndarray:
    """Pack an assortment, bool [items], into bits, least significant first: uint8 [items / 8, rounded up]."""
    return np.packbits(np.asarray(assortment, bool), bitorder="little")


def _tensor(name: str, array: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), _TYPES[array.dtype])
    tensor.set_data_from_numpy(array)
    return tensor
