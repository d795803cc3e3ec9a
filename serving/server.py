"""A Triton server: an embedded tritonserver process on the loopback interface, or a handle on remote servers."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import tritonclient.grpc as triton
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.temporary_folder import temporary_folder
from serving.addresses import LOOPBACK, free_ports, is_free, resolve
from serving.interface import LiveModel
from serving.repository import MODEL_NAME
from serving.triton_home import assemble_backend, find_triton_home
from serving.triton_process import TritonProcess, log_tail, remove_dead_regions
from serving.triton_scorer import ANSWER_SECONDS, TritonScorer, is_unavailable

logger = logging.getLogger(__name__)

ADMIN_KEY_VARIABLE = "MULTITRON_TRITON_ADMIN_KEY"
"""Environment variable with the key for model control."""
ADMIN_HEADER = "multitron-admin-key"
"""Name of the restricted-protocol header that carries the key, see `serving/deploy/serve.sh`."""
_ATTEMPTS = 3  # another process can take a port before the server binds it, and a server can be killed while it starts
_END_SECONDS = 2.0  # a process may take this long to end after its connection breaks


class TritonServer:
    """Context manager: an embedded server, or with `urls` a handle on servers that already run.

    Args:
        repository: the Triton model repository, a folder; created when it is missing. Deployments need a folder that
            remote servers read too; scoring alone needs none.
        urls: gRPC address `host:port`, or several addresses that serve the same repository. A name that resolves to
            several machines (a headless service of Kubernetes) stands for all of them. Empty starts an embedded server.
        grpc_port, http_port, metrics_port: ports of the embedded server; 0 uses a free one.
        log_file: log of the embedded server; default `<repository>.log` next to the repository. The log of the previous
            server is kept as `<log_file>.1`.
        triton_home: folder into which the wheel `nvidia-pytriton` was installed with `pip install --no-deps --target`;
            default: environment variable MULTITRON_TRITON_HOME, else `.triton` of the checkout or the current folder.
        start_timeout: seconds until the server must be ready.
        stop_timeout: seconds for requests in flight before the embedded server is killed.
        request_timeout: seconds per scoring request.

    Raises (on entering):
        InputError: there is no Triton binary, a given port is in use, or an address is not valid.
        UnavailableError: the embedded server does not start, or a remote one does not answer.
    """

    def __init__(
        self,
        repository: Path | str | None = None,
        *,
        urls: str | Sequence[str] = (),
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        log_file: Path | str | None = None,
        triton_home: Path | str | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 10.0,
        request_timeout: float = 300.0,
    ) -> None:
        self.repository = Path(repository).absolute() if repository is not None else None
        self.urls: tuple[str, ...] = (urls,) if isinstance(urls, str) else tuple(urls)
        self.embedded = not self.urls
        self.log_file: Path | None = None
        if self.embedded:
            if self.repository is None:
                raise InputError("an embedded Triton server needs a model repository", hint="give repository=")
            self.log_file = Path(log_file) if log_file else self.repository.with_name(self.repository.name + ".log")
        self._ports = {"grpc": grpc_port, "http": http_port, "metrics": metrics_port}
        self._triton_home = triton_home
        self._start_timeout, self._stop_timeout = start_timeout, stop_timeout
        self._request_timeout = request_timeout
        self._process: TritonProcess | None = None
        self._run_dir: tempfile.TemporaryDirectory[str] | None = None
        self._clients: dict[str, triton.InferenceServerClient] = {}

    def __enter__(self) -> TritonServer:
        try:
            if self.embedded:
                self._start()
            else:
                self.urls = tuple(address for url in self.urls for address in resolve(url))
                for url in self.urls:
                    self._wait_until_ready(url)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The gRPC address of the first server."""
        return self.urls[0]

    @property
    def process_id(self) -> int | None:
        """The process id of the embedded server; None for a remote server or one that does not run."""
        return None if self._process is None else self._process.process_id

    def client(self, url: str | None = None) -> triton.InferenceServerClient:
        """The gRPC client of a server, by default the first; all threads may share it."""
        url = url or self.url
        if url not in self._clients:
            self._clients[url] = triton.InferenceServerClient(url)
        return self._clients[url]

    def load(self, model_name: str, *, config: pb.ModelConfig | None = None) -> None:
        """Load or reload a model on every server. Versions that stay loaded answer during the reload.

        Args:
            model_name: a folder of the repository.
            config: a model configuration; None uses the repository's `config.pbtxt`.

        Raises:
            InputError: a server cannot load the model (the error contains its message), or requires a key.
            UnavailableError: a server does not answer, or the embedded server has ended.
        """
        config_json = None if config is None else json_format.MessageToJson(config, preserving_proto_field_name=True)
        for url in self.urls:
            try:
                self.client(url).load_model(model_name, config=config_json, headers=_admin_headers())
            except InferenceServerException as error:
                if is_unavailable(error) and self._process is not None:
                    self._process.raise_if_ended(within=_END_SECONDS)
                _raise_if_not_executed(error, url)
                raise InputError(
                    "the Triton server cannot load the model",
                    where=f"{model_name} on {url}",
                    found=error.message().split("Internal: ")[-1].split("\n")[0],  # the cause without Triton's prefixes
                    hint=f"see the server's log{f' {self.log_file}' if self.log_file else ''}",
                ) from error

    def unload(self, model_name: str) -> None:
        """Unload a model from every server; requests in flight are finished.

        Raises:
            InputError: a server refuses, or requires a key.
            UnavailableError: a server does not answer.
        """
        for url in self.urls:
            try:
                self.client(url).unload_model(model_name, headers=_admin_headers())
            except InferenceServerException as error:
                _raise_if_not_executed(error, url)
                raise InputError(
                    "the Triton server cannot unload the model", where=f"{model_name} on {url}", found=error.message()
                ) from error

    def scorer(self, *, model_name: str = MODEL_NAME) -> TritonScorer:
        """A scorer for the deployed model, which sends requests to all servers in turn."""
        return TritonScorer(self.urls, self.client, model_name=model_name, timeout=self._request_timeout)

    def live_model(self, *, model_name: str = MODEL_NAME) -> LiveModel:
        """Metadata of the live version, from the first server that answers.

        Raises:
            InputError: no model is deployed, or it was not deployed by this project.
            UnavailableError: no server answers.
        """
        return self.scorer(model_name=model_name).live_model()

    def stop(self) -> None:
        """Close the connections and end the embedded server. Does nothing when it does not run."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._run_dir is not None:
            self._run_dir.cleanup()
            self._run_dir = None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the embedded server's log; empty for a remote server."""
        return "" if self.log_file is None else log_tail(self.log_file, lines)

    def _start(self) -> None:
        assert self.repository is not None
        assert self.log_file is not None
        home = find_triton_home(self._triton_home)
        for name, port in self._ports.items():
            if port and not is_free(port):
                raise InputError(
                    f"the {name} port of the Triton server is in use",
                    where=f"{LOOPBACK}:{port}",
                    hint="stop the process that uses it, give another port, or give none to use a free one",
                )
        self.repository.mkdir(parents=True, exist_ok=True)
        remove_dead_regions()
        self._run_dir = temporary_folder("triton")
        backends = assemble_backend(home, Path(self._run_dir.name))
        for attempt in range(1, _ATTEMPTS + 1):
            self._process = TritonProcess(
                self.repository,
                free_ports(self._ports),
                home=home,
                backends=backends,
                log_file=self.log_file,
                stop_timeout=self._stop_timeout,
            )
            self.urls = (self._process.grpc_url,)
            try:
                self._wait_until_ready(self.url)
                self._load_deployed()
            except UnavailableError as error:
                if attempt == _ATTEMPTS or self.process_id is not None:
                    raise
                logger.warning("tritonserver is started again: %s", error)
                self._process.stop()
            else:
                return

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + self._start_timeout
        problem = "no answer yet"
        while time.monotonic() < deadline:
            if self._process is not None:
                self._process.raise_if_ended()
            try:
                if self.client(url).is_server_live(client_timeout=ANSWER_SECONDS) and self._is_embedded_server(url):
                    return
            except InferenceServerException as error:
                problem = str(error)
            time.sleep(0.05)
        raise UnavailableError(
            f"the Triton server is not ready after {self._start_timeout:g} s",
            where=url,
            found=problem,
            hint=f"see its log:\n{self.log_tail()}" if self.embedded else "check the address and that the server runs",
        )

    def _is_embedded_server(self, url: str) -> bool:
        """Whether the embedded server answers at its address, and not another one that took the port first."""
        if self._process is None:
            return True  # a remote server
        name = self.client(url).get_server_metadata(client_timeout=ANSWER_SECONDS).name
        return bool(name == self._process.server_id)

    def _load_deployed(self) -> None:
        """Load the deployed models of the repository. The server stays up if one cannot be loaded, for a repair."""
        assert self.repository is not None
        for config in sorted(self.repository.glob("*/config.pbtxt")):
            try:
                self.load(config.parent.name)
            except InputError as error:
                logger.error("the deployed model is not served: %s", error)


def _raise_if_not_executed(error: InferenceServerException, url: str) -> None:
    """Raise for a load or unload request that the server did not execute; return if it tried and failed.

    Raises:
        InputError: the server requires a key. Triton's status is UNAVAILABLE then, but a retry cannot help.
        UnavailableError: the server does not answer.
    """
    if "restricted" in error.message():
        raise InputError(
            "the Triton server requires a key for model control",
            where=url,
            found=error.message(),
            hint=f"set {ADMIN_KEY_VARIABLE} to the server's key",
        ) from error
    if is_unavailable(error):
        raise UnavailableError("the Triton server does not answer", where=url, found=str(error)) from error


def _admin_headers() -> dict[str, str] | None:
    """The gRPC header with the key for model control, see `serving/deploy`; None without a key."""
    key = os.environ.get(ADMIN_KEY_VARIABLE)
    return {f"triton-grpc-protocol-{ADMIN_HEADER}": key} if key else None
