"""Scoring requests over gRPC, spread over several servers, repeated while a server is away."""

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
"""How long a server may take to say that it lives and what is deployed; a stopped process would never answer."""

REST_SECONDS = 30.0
"""For how long a server that gave no answer is passed over while another one answers."""

_TYPES = {
    np.dtype(np.int64): "INT64",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float32): "FP32",
    np.dtype(np.uint8): "UINT8",
}


class TritonScorer:
    """Answers scoring requests with a deployed model; safe to call from several threads.

    Scoring changes nothing on the server, so a request that got no answer is sent again, to the next server; the one
    that gave none is passed over for a while, since finding out may take as long as a request may.

    Args:
        urls: gRPC addresses that serve the same repository.
        client: gives the client of an address.
        model_name: the model of the repository.
        timeout: seconds that one request may take.
        patience: seconds for which an unavailable server is tried again.
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
        """The model that counts as deployed, asked of the first server that answers.

        Raises:
            InputError: no model is deployed there.
            UnavailableError: no server answers.
        """
        for url in self._urls:
            try:
                answer = self._client(url).get_model_config(self._model_name, client_timeout=ANSWER_SECONDS)
                return live_model_of(answer.config)
            except InferenceServerException as error:
                # Triton answers UNAVAILABLE for a model that it does not have, too.
                if not is_unavailable(error) or "unknown model" in error.message():
                    raise InputError(
                        "no model is deployed",
                        where=f"{self._model_name} on {url}",
                        found=error.message(),
                        hint="deploy one",
                    ) from error
                last = error
        raise UnavailableError(
            "the Triton server does not answer", where=", ".join(self._urls), found=str(last)
        ) from last

    def top_k(self, request: ScoringRequest, model: LiveModel) -> tuple[np.ndarray, np.ndarray]:
        """Item indices int32 [sessions, k] and scores float32 [sessions, k], best first.

        Raises:
            InputError: the server refuses the request.
            UnavailableError: no answer within the patience, no server holds the version any more, or the process that
                runs the model has ended.
        """
        inputs, parameters = request_tensors(request, model)
        tensors = [_tensor(name, array) for name, array in inputs.items()]
        result = self._send(tensors, str(model.version), parameters)
        index, scores = result.as_numpy("item_index"), result.as_numpy("score")
        assert index is not None  # the config names both outputs
        assert scores is not None
        return index, scores

    def _send(
        self, tensors: list[triton.InferInput], version: str, parameters: dict[str, str] | None
    ) -> triton.InferResult:
        deadline = time.monotonic() + self._patience
        pause = 0.1
        without = set[str]()  # servers that do not hold the version: one that just started may load it yet
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
                gone, ended = error.status() == "StatusCode.NOT_FOUND", _has_lost_its_model(error)
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
                        what, hint = "the deployed version is not served any more", f"{hint}: it will use the live one"
                    if ended:
                        what = "the process of the model has ended on the Triton server"
                        hint = f"see the server's log, start that server again where it runs by URL, then {hint}"
                    where = f"{self._model_name} version {version} on {url}"
                    raise UnavailableError(what, where=where, found=error.message(), hint=hint) from error
                logger.info("no answer from %s (%s); trying again in %.1f s", url, error.message(), pause)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _next_url(self) -> str:
        """The server whose turn it is; one that gave no answer of late only where all did."""
        first = next(self._turn)
        in_turn = [self._urls[(first + place) % len(self._urls)] for place in range(len(self._urls))]
        now = time.monotonic()
        return next((url for url in in_turn if self._rests_until.get(url, now) <= now), in_turn[0])


def request_tensors(request: ScoringRequest, model: LiveModel) -> tuple[dict[str, np.ndarray], dict[str, str] | None]:
    """The inputs of a request by name, and its parameters, as the model's backend reads them.

    The python backend reads an assortment from a parameter, since an input would have a row a session there;
    onnxruntime cannot read parameters and needs every input.
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
    """Whether a gRPC error may pass by itself, so that the same request can be sent again."""
    return error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")


def _has_lost_its_model(error: InferenceServerException) -> bool:
    """Whether the process that runs a python model has ended (killed, say, for want of memory).

    Triton 2.51 answers INTERNAL then and does not start the process again: another server, or a new one, can answer.
    """
    return "Stub process" in error.message() and "not healthy" in error.message()


def pack_assortment(assortment: np.ndarray) -> np.ndarray:
    """An assortment (bool [items]) as bits, least significant first: uint8 [items / 8, rounded up]."""
    return np.packbits(np.asarray(assortment, bool), bitorder="little")


def _tensor(name: str, array: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), _TYPES[array.dtype])
    tensor.set_data_from_numpy(array)
    return tensor
