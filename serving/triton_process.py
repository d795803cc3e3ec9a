"""The tritonserver process of an embedded server: start, log, shared memory and end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from multitron_core.errors import UnavailableError
from multitron_core.utils.temporary_folder import is_running
from serving.addresses import LOOPBACK

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux shows shared memory as files."""
REGION_PREFIX = "multitron_batch"
"""Start of the names of the shared-memory regions: `<prefix>_<process id of the owner>_<random>...`."""
_LOAD_SECONDS = 600


class TritonProcess:
    """One tritonserver process on the loopback interface. It ends with this process, even if this one is killed.

    Args:
        repository: the Triton model repository, an existing folder.
        ports: the ports "grpc", "http" and "metrics", all free.
        home: folder of the Triton binary, from `triton_home.find_triton_home`.
        backends: backend directory, from `triton_home.assemble_backend`.
        log_file: receives the output; an existing log is kept as `<log_file>.1`.
        stop_timeout: seconds for requests in flight before `stop` kills the process.

    Raises:
        UnavailableError: the system cannot start the binary.
    """

    def __init__(
        self,
        repository: Path,
        ports: dict[str, int],
        *,
        home: Path,
        backends: Path,
        log_file: Path,
        stop_timeout: float,
    ) -> None:
        self.server_id = f"{REGION_PREFIX}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        """Name of the server in its metadata, and start of the names of its shared-memory regions."""
        self.grpc_url = f"{LOOPBACK}:{ports['grpc']}"
        self.log_file = log_file
        self._stop_timeout = stop_timeout
        command = [
            str(home / "bin" / "tritonserver"),
            f"--id={self.server_id}",
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self.server_id}",
            # Triton 2.51 aborts when an instance needs longer to start, by default 30 s. Importing torch on a busy
            # machine can take longer.
            f"--backend-config=python,stub-timeout-seconds={_LOAD_SECONDS}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={int(stop_timeout)}",
        ]
        for name, port in ports.items():
            command += [f"--{name}-address={LOOPBACK}", f"--{name}-port={port}"]
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if log_file.exists():  # it may contain the reason why the previous server ended
            os.replace(log_file, log_file.with_name(log_file.name + ".1"))
        started = threading.Event()
        failures: list[OSError] = []
        # The kernel ties the server to the thread that starts it, so this thread lives as long as the server.
        self._thread = threading.Thread(
            target=self._run, args=(command, started, failures), name="tritonserver", daemon=True
        )
        self._thread.start()
        started.wait()
        if failures:
            raise UnavailableError("tritonserver cannot be started", where=command[0], found=str(failures[0]))

    def _run(self, command: list[str], started: threading.Event, failures: list[OSError]) -> None:
        script = Path(__file__).with_name("parent_death_signal.py")
        # The backend runs the python3 that is first in PATH: this Python, which has torch.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        try:
            with self.log_file.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(script), str(os.getpid()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Threads that spin while they wait delay each other by tenths of a second on busy cores.
                    env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PATH": path},
                    start_new_session=True,  # Ctrl-C reaches this process only, which then stops the server
                )
        except OSError as error:
            failures.append(error)
            return
        finally:
            started.set()
        self._process.wait()
        # A killed server leaves the processes of its models behind; they belong to its process group.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def process_id(self) -> int | None:
        """The process id; None after the process has ended."""
        return self._process.pid if self._process.poll() is None else None

    def raise_if_ended(self, *, within: float = 0.0) -> None:
        """Raise if the process has ended.

        Args:
            within: seconds to wait for its end.

        Raises:
            UnavailableError: with the exit status and the last lines of the log.
        """
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            return
        raise UnavailableError(
            "tritonserver has ended",
            where=self.log_file,
            found=f"exit status {status}",
            hint=f"see the last lines of its log:\n{log_tail(self.log_file)}",
        )

    def stop(self) -> None:
        """End the process: SIGTERM, then SIGKILL after the timeout. Does nothing after it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._stop_timeout + 2.0)
            except subprocess.TimeoutExpired:
                logger.warning("tritonserver %d did not stop in time and is killed", self._process.pid)
                self._process.kill()
                self._process.wait()
        self._thread.join()
        for region in SHARED_MEMORY.glob(f"{self.server_id}*"):
            region.unlink(missing_ok=True)


def log_tail(log_file: Path, lines: int = 20) -> str:
    """The last lines of a log file; empty where the file does not exist."""
    if not log_file.exists():
        return ""
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-lines:])


def remove_dead_regions() -> None:
    """Remove the shared-memory regions of embedded servers whose owner has ended; those of other users stay."""
    for region in SHARED_MEMORY.glob(f"{REGION_PREFIX}_*"):
        owner = region.name.removeprefix(f"{REGION_PREFIX}_").split("_", 1)[0]
        if owner.isdecimal() and not is_running(int(owner)):
            with suppress(PermissionError):
                region.unlink(missing_ok=True)
