"""A real cluster on this machine: a Redis broker, Postgres for the Dagster instance, Celery workers.

The test of the Celery configuration and `benchmarks/workers.py` use it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
START_SECONDS = 90.0
"""Seconds to wait for a process: a worker imports torch first, on a machine that may be busy."""


class MissingPartError(Exception):
    """A program is missing on this machine; the message says how to install it."""


def check_parts() -> None:
    """Check that the programs of a cluster are installed.

    Raises:
        MissingPartError: Redis or Postgres is not installed.
    """
    _redis_binary()
    _postgres_binaries()


def _redis_binary() -> str:
    binary = shutil.which("redis-server")
    if binary is None:
        raise MissingPartError("no redis-server on this machine: apt-get install redis-server")
    return binary


def _postgres_binaries() -> Path:
    """The folder of the newest installed Postgres."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not binaries:
        raise MissingPartError("no Postgres on this machine: apt-get install postgresql")
    return binaries[-1]


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process within the block; at its end stop it and its children, by SIGTERM, then by SIGKILL."""
    with (
        log.open("ab") as lines,
        subprocess.Popen(command, stdout=lines, stderr=subprocess.STDOUT, start_new_session=True, **options) as process,
    ):
        try:
            yield process
        finally:
            for ending in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, ending)
                    process.wait(30)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = START_SECONDS
) -> None:
    """Wait until a process is ready.

    Args:
        ready: returns whether it is ready.
        process: must not end before.
        log: its log file; the end of it is in the error message.
        seconds: maximum time to wait.

    Raises:
        AssertionError: the process has ended, or is not ready in time.
    """
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Whether a process accepts connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def log_contains(log: Path, words: str) -> bool:
    """Whether a log file contains these words."""
    return words in log.read_text()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A new Redis server; yields `redis://host:port`."""
    port, log = free_port(), folder / "redis.log"
    command = [_redis_binary(), "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "no"]  # no persistence
    with running(command, log) as process:
        wait_until(partial(listens, port), process, log)
        yield f"redis://{LOOPBACK}:{port}"


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A new Postgres cluster; yields its address. Postgres refuses root, so root runs it as the user `postgres`."""
    binaries = _postgres_binaries()
    data = folder / "postgres"
    data.mkdir()
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(data, "postgres", "postgres")
        for parent in [folder, *folder.parents]:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    init = [*as_user, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "dagster", "--no-sync"]
    subprocess.run(init, check=True, capture_output=True, cwd="/")
    port, log = free_port(), folder / "postgres.log"
    settings = {"port": port, "listen_addresses": LOOPBACK, "unix_socket_directories": data, "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with running([*as_user, str(binaries / "postgres"), "-D", str(data), *options], log, cwd="/") as process:
        wait_until(partial(log_contains, log, "ready to accept connections"), process, log)
        yield f"postgresql+psycopg2://dagster@{LOOPBACK}:{port}/postgres"


@contextmanager
def workers(names: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[dict[str, Path]]:
    """Celery workers on all queues, each one step at a time; yields their log files by name."""
    command = [str(Path(sys.executable).with_name("dagster-celery")), "worker", "start", "-A", "dagster_celery.app"]
    command += ["-y", str(ROOT / "deploy/celery/celery.yaml"), "-q", "ingestion,gpu,scoring"]
    logs = {name: folder / f"worker-{name}.log" for name in names}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.environ['PATH'])}"
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(
                running(
                    [*command, "-n", name, "--", "--concurrency", "1"],
                    log,
                    cwd=ROOT,
                    env={**environment, "PATH": path, "C_FORCE_ROOT": "1"},
                )
            )
            for name, log in logs.items()
        }
        for name, process in started.items():
            wait_until(partial(log_contains, logs[name], " ready."), process, logs[name])
        yield logs


@contextmanager
def celery_cluster(home: Path, names: Sequence[str], folder: Path) -> Iterator[dict[str, Path]]:
    """Broker, Dagster instance and workers of a shop; yields the log files of the workers by name.

    Sets the environment variables of this process within the block.

    Args:
        home: home folder of the shop; its Dagster instance gets the configuration of deploy/celery.
        names: of the workers.
        folder: an empty folder for logs and the database.

    Raises:
        MissingPartError: Redis or Postgres is not installed.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(redis(folder))
        database = stack.enter_context(postgres(folder))
        (home / "dagster").mkdir(exist_ok=True)
        shutil.copyfile(ROOT / "deploy/celery/dagster.yaml", home / "dagster" / "dagster.yaml")
        variables = {
            "MULTITRON_HOME": str(home),
            "DAGSTER_HOME": str(home / "dagster"),
            "MULTITRON_POSTGRES_URL": database,
            "MULTITRON_EXECUTOR": "celery",
            "MULTITRON_CELERY_BROKER": f"{broker}/0",
            "MULTITRON_CELERY_RESULTS": f"{broker}/1",
        }
        environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            # Create the tables and the rows of the pools: the first runs of a pool would all insert its row.
            with dg.DagsterInstance.get() as instance:
                for pool in ("gpu", "triton"):
                    instance.event_log_storage.set_concurrency_slots(pool, 16)
            yield stack.enter_context(workers(names, environment, folder))
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def run_at_once(job: str, keys: Sequence[dg.MultiPartitionKey], folder: Path) -> list[dg.DagsterRun]:
    """Start the runs of a job at the same time, one per partition, and wait for them.

    Each run is a process, as the daemon would start it. It only waits: the workers execute its steps.

    Returns:
        The finished runs, in the order of `keys`.
    """
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "orchestration.definitions", "-j", job]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                running([*command, "--tags", json.dumps(_tags(key))], folder / f"run-{key}.log", cwd=ROOT)
            )
            for key in keys
        ]
        for process in processes:
            process.wait()
    with dg.DagsterInstance.get() as instance:
        return [instance.get_runs(dg.RunsFilter(tags=_tags(key)), limit=1)[0] for key in keys]


def _tags(key: dg.MultiPartitionKey) -> dict[str, str]:
    dimensions = {f"dagster/partition/{name}": value for name, value in key.keys_by_dimension.items()}
    return {"dagster/partition": str(key), **dimensions}


def workers_of(run: dg.DagsterRun) -> dict[str, str]:
    """The worker of each step of a run: step key -> worker name."""
    with dg.DagsterInstance.get() as instance:
        records = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    events = [record.dagster_event for record in records if record.dagster_event]
    return {
        str(event.step_key): str(event.event_specific_data.metadata["Celery worker"].value)  # type: ignore[union-attr]
        for event in events
        if "Celery worker" in getattr(event.event_specific_data, "metadata", {})
    }
