"""Embedded and remote Triton servers: addresses, restarts, and scoring while a server fails."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tritonclient.grpc as triton_client
from tritonclient.grpc import model_config_pb2 as pb

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake.lake import Lake
from multitron_core.sessions.vocabulary import Vocabulary
from serving import server as server_module
from serving.addresses import free_ports
from serving.deployment import deploy
from serving.scorer import score_sessions
from serving.server import TritonServer
from serving.triton_scorer import TritonScorer
from tests.serving.conftest import is_alive, model_process, process_group, some_sessions, wait_until

NIGHT = date(2026, 1, 5)


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which a process listens, by /proc."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if "socket" in link}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_triton_server_listens_on_loopback_until_it_stops(tmp_path: Path, triton: Path) -> None:
    with TritonServer(tmp_path / "repository", triton_home=triton.parents[1]) as server:
        pid = server.process_id
        assert pid is not None
        # 127.0.0.1 in the kernel's notation, as an IPv4 address and as an IPv6 address
        assert listening_addresses(pid) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        assert server.url.startswith("127.0.0.1:")
        with pytest.raises(InputError, match="no model is deployed"):
            server.scorer().live_model()
    assert not is_alive(pid)
    assert server.process_id is None
    assert "Started GRPCInferenceService" in server.log_tail(1000)
    with pytest.raises(UnavailableError, match="does not answer"):
        TritonScorer(server.urls, triton_client.InferenceServerClient).live_model()


@pytest.mark.usefixtures("triton")
def test_triton_server_refuses_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=rf"grpc port.*in use.*{port}.*another port"),
            TritonServer(tmp_path / "repository", grpc_port=port),
        ):
            pass


@pytest.mark.usefixtures("triton")
def test_triton_server_tries_another_port_if_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TritonServer(tmp_path / "other") as other:
        offered = [{"grpc": int(other.url.split(":")[1])}]
        # No test can make another process take a port in the moment between its choice and its use.
        monkeypatch.setattr(
            server_module,
            "free_ports",
            lambda ports: free_ports(ports | offered.pop()) if offered else free_ports(ports),
        )
        with TritonServer(tmp_path / "repository") as server:
            assert server.url != other.url
            assert server.client().is_server_ready()
    assert not offered
    assert "already in use" in (tmp_path / "repository.log.1").read_text()


class KilledOnce(TritonServer):
    """A server whose process is killed the first time that it loads a model."""

    killed: int | None = None

    def load(self, model_name: str, *, config: pb.ModelConfig | None = None) -> None:
        if self.killed is None and self.process_id is not None:
            self.killed = self.process_id
            os.kill(self.killed, signal.SIGKILL)
        super().load(model_name, config=config)


@pytest.mark.usefixtures("triton")
def test_triton_server_restarts_if_killed_while_it_loads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "serving.server")
    config = tmp_path / "repository" / "multitron" / "config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text("not a configuration")
    server = KilledOnce(tmp_path / "repository")
    with server:
        assert server.client().is_server_ready()
        assert server.killed is not None
        assert server.process_id not in (None, server.killed)
    assert "tritonserver has ended" in caplog.text
    assert "exit status -9" in caplog.text
    assert "Started GRPCInferenceService" in caplog.text, "the error shows the last lines of the log"
    assert "the deployed model is not served" in caplog.text, "a model that cannot be loaded does not stop the server"


def test_triton_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    home = tmp_path / "home" / "pytriton" / "tritonserver"
    stub = home / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    stub.mkdir(parents=True)
    (stub / "triton_python_backend_stub").touch()
    binary = home / "bin" / "tritonserver"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho 'a library is missing'\nexit 3\n")
    binary.chmod(0o755)
    with pytest.raises(UnavailableError, match=r"(?s)tritonserver has ended.*exit status 3.*a library is missing"):
        TritonServer(tmp_path / "repository", triton_home=tmp_path / "home").__enter__()


def test_triton_server_needs_an_address_or_a_repository() -> None:
    with pytest.raises(UnavailableError, match=r"not ready after 0\.5 s"):
        TritonServer(urls="127.0.0.1:9", start_timeout=0.5).__enter__()
    with pytest.raises(InputError, match="needs a model repository"):
        TritonServer()


@pytest.mark.slow
def test_triton_server_by_url_scores_but_cannot_deploy(
    server: TritonServer, model_dir: Path, vocabulary: Vocabulary
) -> None:
    # The same server under two addresses: requests go to them in turn.
    with TritonServer(urls=[*server.urls, *server.urls]) as remote:
        assert remote.process_id is None
        assert remote.log_tail() == ""
        assert remote.live_model() == server.live_model()
        sessions = some_sessions(vocabulary, 60)
        frame = next(iter(score_sessions(sessions, "0.50", 5, scorer=remote.scorer(), vocabulary=vocabulary)))
        assert len(frame) == 300
        with pytest.raises(InputError, match="needs the model repository"):
            deploy(model_dir, remote)


@pytest.mark.slow
@pytest.mark.usefixtures("triton")
def test_triton_server_killed_while_it_scores(repository: Path, tmp_path: Path, vocabulary: Vocabulary) -> None:
    sessions, lake = some_sessions(vocabulary, 400), Lake(tmp_path / "lake")
    lake.create(vocabulary.item_ids.dtype)

    def replace(scorer: TritonScorer, after_first: Callable[[], None] = lambda: None) -> None:
        def frames() -> Iterator[pl.DataFrame]:
            scored = score_sessions(
                sessions, "0.50", 5, scorer=scorer, vocabulary=vocabulary, window_sessions=50, batch_sessions=8
            )
            yield next(scored)
            after_first()
            yield from scored

        lake.replace_partition(NIGHT, "0.50", frames(), model_version="first", k=5, expected_lists=400)

    def rows() -> pl.DataFrame:
        return lake.read_recommendations("0.50", NIGHT, unpublished=True).sort("session_id", "rank")

    expected: pl.DataFrame | None = None
    # Each server finds what the killed one had served, and the repeated run ends in the same rows.
    for victim, message in (
        ("process of its model", "process of the model has ended"),
        ("server", "does not answer"),
        (None, ""),
    ):
        with TritonServer(repository, stop_timeout=2.0) as server:
            scorer = TritonScorer(server.urls, server.client, patience=1.0)
            replace(scorer)
            found = rows()
            expected = found if expected is None else expected
            assert found.drop("score").equals(expected.drop("score"))
            np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-5)
            if victim is None:
                continue
            version, pid = lake.version("recommendations"), server.process_id
            assert pid is not None
            killed = pid if victim == "server" else model_process(server)
            with pytest.raises(UnavailableError, match=message):
                replace(scorer, lambda killed=killed: os.kill(killed, signal.SIGKILL))  # type: ignore[misc]
            if victim == "server":
                wait_until(lambda pid=pid: not process_group(pid))  # type: ignore[misc]
            assert lake.version("recommendations") == version, "readers still have the previous partition"


def answered(server: TritonServer) -> int:
    """Number of requests that a server has answered since it started."""
    (statistics,) = server.client().get_inference_statistics("multitron").model_stats
    return int(statistics.inference_stats.success.count)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "process of its model"])
def test_triton_server_replaces_another_that_fails(
    server: TritonServer, tmp_path: Path, vocabulary: Vocabulary, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving.triton_scorer")
    sessions, before = some_sessions(vocabulary, 300), answered(server)

    def lists(one: TritonServer) -> Iterator[pl.DataFrame]:
        return score_sessions(
            sessions, "0.50", 5, scorer=one.scorer(), vocabulary=vocabulary, window_sessions=50, batch_sessions=8
        )

    assert server.repository is not None
    with (
        TritonServer(server.repository, log_file=tmp_path / "second.log", stop_timeout=2.0) as second,
        TritonServer(urls=[*server.urls, *second.urls]) as both,
    ):
        frames = lists(both)
        found = [next(frames)]
        assert answered(server) > before
        assert answered(second) > 0
        if victim == "server":
            second.stop()
        else:
            os.kill(model_process(second), signal.SIGKILL)
        found += list(frames)
    assert 1 <= caplog.text.count("no answer from") <= 4, "only requests in flight were sent to the failed server"
    assert pl.concat(found).drop("score").equals(pl.concat(lists(server)).drop("score"))
