"""A Triton server: a real tritonserver process of our own on 127.0.0.1, or a handle on servers that run elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import tritonclient.grpc as triton
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.temporary_folder import is_running, temporary_folder
from serving.interface import LiveModel
from serving.repository import MODEL_NAME
from serving.triton_home import assemble_backend, find_triton_home
from serving.triton_scorer import ANSWER_SECONDS, TritonScorer, is_unavailable

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_SHARED_MEMORY = Path("/dev/shm")
ADMIN_KEY_VARIABLE = "MULTITRON_TRITON_ADMIN_KEY"
ADMIN_HEADER = "multitron-admin-key"
_REGION_PREFIX = "multitron_batch"
_LOAD_SECONDS = 600
_ATTEMPTS = 3  # a port that the system gave us can be taken before the server binds it, and a process can be killed
_END_SECONDS = 2.0  # from a connection that breaks until its process is seen to have ended


class TritonServer:
    """Context manager: an embedded server, or, with `urls`, a handle on servers that run already.

    Args:
        repository: the Triton model repository, a folder; made when it is missing. A remote server must see the same
            folder for deployments; scoring alone does not need it.
        urls: gRPC address `host:port`, or several that serve the same repository. A name that stands for several
            machines (a headless service of Kubernetes) counts as all of them. None given: a server is started.
        grpc_port, http_port, metrics_port: of the embedded server; 0 lets the system choose a free one.
        log_file: where the embedded server writes; default: beside the repository, `<repository>.log`. The log before
            is kept as `<log_file>.1`.
        triton_home: folder into which the wheel `nvidia-pytriton` was installed with `pip install --no-deps --target`;
            default: environment variable MULTITRON_TRITON_HOME, else `.triton` of the checkout or the current folder.
        start_timeout: seconds until the server must be ready.
        stop_timeout: seconds it has for requests in flight before it is killed.
        request_timeout: seconds that one scoring request may take.

    Raises (on entering):
        InputError: no Triton binary, or a given port is in use.
        UnavailableError: the server does not start, or a remote one does not answer.
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
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._run_dir: tempfile.TemporaryDirectory[str] | None = None
        self._regions = ""
        self._clients: dict[str, triton.InferenceServerClient] = {}

    def __enter__(self) -> TritonServer:
        try:
            if self.embedded:
                self._start()
            else:
                self.urls = tuple(address for url in self.urls for address in _addresses(url))
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
        """The gRPC address of the (first) server."""
        return self.urls[0]

    @property
    def process_id(self) -> int | None:
        """The embedded server's process; None for a remote server or one that is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def client(self, url: str | None = None) -> triton.InferenceServerClient:
        """The gRPC client of a server, default the first; one client serves all threads."""
        url = url or self.url
        if url not in self._clients:
            self._clients[url] = triton.InferenceServerClient(url)
        return self._clients[url]

    def load(self, model_name: str, *, config: pb.ModelConfig | None = None) -> None:
        """Load or reload a model on every server; versions that stay are served on while it happens.

        Args:
            model_name: a folder of the repository.
            config: a model configuration in place of the repository's `config.pbtxt`.

        Raises:
            InputError: the server cannot load it; the message holds the server's.
            UnavailableError: no answer, or the embedded server has ended.
        """
        given = None if config is None else json_format.MessageToJson(config, preserving_proto_field_name=True)
        for url in self.urls:
            try:
                self.client(url).load_model(model_name, config=given, headers=_admin_headers())
            except InferenceServerException as error:
                if is_unavailable(error):
                    self._raise_if_ended(within=_END_SECONDS)
                _raise_if_away(error, url)
                raise InputError(
                    "the Triton server cannot load the model",
                    where=f"{model_name} on {url}",
                    found=error.message().split("Internal: ")[-1].split("\n")[0],  # the cause, without its wrapping
                    hint=f"see the server's log{f' {self.log_file}' if self.log_file else ''}",
                ) from error

    def unload(self, model_name: str) -> None:
        """Drop a model from every server; requests under way are finished.

        Raises:
            InputError: the server refuses.
            UnavailableError: no answer.
        """
        for url in self.urls:
            try:
                self.client(url).unload_model(model_name, headers=_admin_headers())
            except InferenceServerException as error:
                _raise_if_away(error, url)
                raise InputError(
                    "the Triton server cannot unload the model", where=f"{model_name} on {url}", found=error.message()
                ) from error

    def scorer(self, *, model_name: str = MODEL_NAME) -> TritonScorer:
        """Who answers scoring requests: the deployed model, over gRPC, on all servers in turn."""
        return TritonScorer(self.urls, self.client, model_name=model_name, timeout=self._request_timeout)

    def live_model(self, *, model_name: str = MODEL_NAME) -> LiveModel:
        """The metadata call: which model is live.

        Raises:
            InputError: no model is deployed there, or not by this project.
            UnavailableError: no answer.
        """
        return self.scorer(model_name=model_name).live_model()

    def stop(self) -> None:
        """Stop the embedded server, kindly and then not; close the connections. Harmless when it is not running."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._stop_timeout + 2.0)
            except subprocess.TimeoutExpired:
                logger.warning("tritonserver %d did not stop in time and is killed", self._process.pid)
                self._process.kill()
                self._process.wait()
        if self._keeper is not None:
            self._keeper.join()
        self._process = self._keeper = None
        self._remove_regions()
        if self._run_dir is not None:
            self._run_dir.cleanup()
            self._run_dir = None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the embedded server's log."""
        if self.log_file is None or not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def _start(self) -> None:
        assert self.repository is not None
        home = find_triton_home(self._triton_home)
        for name, port in self._ports.items():
            if port and not _is_free(port):
                raise InputError(
                    f"the {name} port of the Triton server is in use",
                    where=f"{LOOPBACK}:{port}",
                    hint="stop what uses it, give another port, or leave it out and the system chooses a free one",
                )
        self.repository.mkdir(parents=True, exist_ok=True)
        remove_dead_regions()
        self._run_dir = temporary_folder("triton")
        backends = assemble_backend(home, Path(self._run_dir.name))
        for attempt in range(1, _ATTEMPTS + 1):
            ports = _chosen(self._ports)
            self._regions = f"{_REGION_PREFIX}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
            self._spawn(home, backends, ports)
            self.urls = (f"{LOOPBACK}:{ports['grpc']}",)
            try:
                self._wait_until_ready(self.url)
                self._load_deployed()
            except UnavailableError as error:
                if attempt == _ATTEMPTS or self.process_id is not None:
                    raise
                logger.warning("tritonserver is started again: %s", error)
                self._remove_regions()
            else:
                return

    def _spawn(self, home: Path, backends: Path, ports: dict[str, int]) -> None:
        assert self.log_file is not None
        command = [
            str(home / "bin" / "tritonserver"),
            f"--id={self._regions}",
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._regions}",
            # Triton 2.51 aborts when it gives up an instance that is still starting, by default after 30 s, which
            # importing torch on a crowded machine can take.
            f"--backend-config=python,stub-timeout-seconds={_LOAD_SECONDS}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={int(self._stop_timeout)}",
        ]
        for name, port in ports.items():
            command += [f"--{name}-address={LOOPBACK}", f"--{name}-port={port}"]
        # The backend runs the python3 that is first in PATH: this one, which has torch.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        tie = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death_signal.py")), str(os.getpid())]
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists():  # it may say why the server before has ended
            os.replace(self.log_file, self.log_file.with_name(self.log_file.name + ".1"))
        started = threading.Event()
        failure: list[OSError] = []

        def keep(log_file: Path) -> None:
            # The kernel ties the server to the THREAD that starts it, so that thread must live as long as we do.
            try:
                with log_file.open("wb") as log:
                    process = self._process = subprocess.Popen(
                        tie + command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        # Threads that wait by spinning stop each other for tenths of a second on busy cores.
                        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PATH": path},
                        start_new_session=True,  # Ctrl-C reaches us, and we stop it in order
                    )
            except OSError as error:
                failure.append(error)
                return
            finally:
                started.set()
            process.wait()
            # A server that was killed leaves the processes of its models behind; they are of its process group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        self._keeper = threading.Thread(target=keep, args=(self.log_file,), name="tritonserver", daemon=True)
        self._keeper.start()
        started.wait()
        if failure:
            raise UnavailableError("tritonserver cannot be started", where=command[0], found=str(failure[0]))

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + self._start_timeout
        problem = "no answer yet"
        while time.monotonic() < deadline:
            self._raise_if_ended()
            try:
                if self.client(url).is_server_live(client_timeout=ANSWER_SECONDS) and self._is_ours(url):
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

    def _remove_regions(self) -> None:
        """Remove the shared memory of the embedded server, which has ended."""
        if self._regions:
            for region in _SHARED_MEMORY.glob(f"{self._regions}*"):
                region.unlink(missing_ok=True)

    def _is_ours(self, url: str) -> bool:
        """Whether our server answers there, and not another one that took the port first."""
        if not self.embedded:
            return True
        name = self.client(url).get_server_metadata(client_timeout=ANSWER_SECONDS).name
        return bool(name == self._regions)

    def _raise_if_ended(self, *, within: float = 0.0) -> None:
        """Raise when the embedded server's process has ended, or does so within some seconds.

        Raises:
            UnavailableError: with its exit status and the end of its log.
        """
        if self._process is None:
            return
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            return
        raise UnavailableError(
            "tritonserver has ended",
            where=self.log_file,
            found=f"exit status {status}",
            hint=f"the end of its log says why:\n{self.log_tail()}",
        )

    def _load_deployed(self) -> None:
        """Load what the repository says is deployed. A model that cannot be loaded leaves the server up for repairs."""
        assert self.repository is not None
        for config in sorted(self.repository.glob("*/config.pbtxt")):
            try:
                self.load(config.parent.name)
            except InputError as error:
                logger.error("the deployed model is not served: %s", error)


def remove_dead_regions() -> None:
    """Remove shared-memory regions that servers of ended processes of ours left behind; another user's stay."""
    for region in _SHARED_MEMORY.glob(f"{_REGION_PREFIX}_*"):
        owner = region.name.removeprefix(f"{_REGION_PREFIX}_").split("_", 1)[0]
        if owner.isdecimal() and not is_running(int(owner)):
            with suppress(PermissionError):
                region.unlink(missing_ok=True)


def _addresses(url: str) -> list[str]:
    """Every machine that an address `host:port` stands for.

    Raises:
        UnavailableError: the name is not known now.
    """
    host, _, port = url.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(
            "not the address of a server",
            where="urls",
            found=url,
            hint="give host:port, for example triton:8001 (the gRPC port)",
        )
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError("the Triton server's name is not known", where=url, found=str(error)) from error
    # A machine often has an address of both kinds (localhost has): count one kind.
    hosts = sorted({str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET})
    return [f"{each}:{port}" for each in hosts] if len(hosts) > 1 else [url]


def _raise_if_away(error: InferenceServerException, url: str) -> None:
    """Raise what a server means that does not load or unload for us; return where it did try.

    Raises:
        InputError: it asks for a key. Triton's status for that is UNAVAILABLE, but no repetition helps.
        UnavailableError: no answer.
    """
    if "restricted" in error.message():
        raise InputError(
            "the Triton server lets only key holders change what it serves",
            where=url,
            found=error.message(),
            hint=f"set {ADMIN_KEY_VARIABLE} to the server's key",
        ) from error
    if is_unavailable(error):
        raise UnavailableError("the Triton server does not answer", where=url, found=str(error)) from error


def _admin_headers() -> dict[str, str] | None:
    """What a server asks for that lets only key holders load and unload models; see `serving/deploy`."""
    key = os.environ.get(ADMIN_KEY_VARIABLE)
    return {f"triton-grpc-protocol-{ADMIN_HEADER}": key} if key else None


def _chosen(ports: dict[str, int]) -> dict[str, int]:
    """The ports, with a free one for each 0; all are held until the last is found, so that no two are the same."""
    with ExitStack() as held:
        return {name: port or held.enter_context(_bound(0)).getsockname()[1] for name, port in ports.items()}


def _is_free(port: int) -> bool:
    try:
        _bound(port).close()
    except OSError:
        return False
    return True


def _bound(port: int) -> socket.socket:
    probe = socket.socket()
    try:
        # Triton binds so too, where a closed connection still lingers; among free ports it would let two be the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
        probe.bind((LOOPBACK, port))
    except BaseException:
        probe.close()
        raise
    return probe
