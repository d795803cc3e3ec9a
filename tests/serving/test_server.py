"""The embedded server as a process: addresses, failures, and what is left when somebody is killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tritonclient.grpc as triton

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake.lake import Lake
from multitron_core.sessions.vocabulary import Vocabulary
from serving import server as server_module
from serving.deployment import deploy
from serving.interface import ScoringRequest
from serving.scorer import score_sessions
from serving.server import TritonServer, remove_dead_regions
from serving.triton_home import find_triton_home
from serving.triton_scorer import TritonScorer
from tests.serving.conftest import alive, process_group, process_of_its_model, require_triton, some_sessions, wait_until


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which a process listens, by /proc."""
    inodes = {os.readlink(path)[8:-1] for path in Path(f"/proc/{pid}/fd").iterdir() if "socket" in os.readlink(path)}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_it_listens_on_loopback_alone_and_ends_with_the_context(tmp_path: Path) -> None:
    require_triton()
    with TritonServer(tmp_path / "repository") as server:
        pid = server.process_id
        assert pid is not None
        # 127.0.0.1 as the kernel writes it, for IPv4 and as an IPv6 address
        assert listening_addresses(pid) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        assert server.url.startswith("127.0.0.1:")
        with pytest.raises(InputError, match="no model is deployed"):
            server.scorer().live_model()
    assert not alive(pid)
    assert "Started GRPCInferenceService" in (tmp_path / "repository.log").read_text()
    with pytest.raises(UnavailableError, match="does not answer"):
        TritonScorer(server.urls, triton.InferenceServerClient).live_model()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    require_triton()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=rf"grpc port.*in use.*{port}.*another port"),
            TritonServer(tmp_path / "repository", grpc_port=port),
        ):
            pass


@pytest.mark.slow
def test_a_port_that_another_server_took_is_not_ours_and_another_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_triton()
    with TritonServer(tmp_path / "another") as another:
        offered = [{"grpc": int(another.url.split(":")[1])}]
        chosen = server_module._chosen
        monkeypatch.setattr(
            server_module, "_chosen", lambda ports: chosen(ports | offered.pop()) if offered else chosen(ports)
        )
        with TritonServer(tmp_path / "repository") as server:
            assert server.url != another.url
            assert server.client().is_server_ready()
    assert not offered
    assert "already in use" in (tmp_path / "repository.log.1").read_text(), "the log before is kept"


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_loads_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    require_triton()
    caplog.set_level("WARNING", "serving.server")
    killed: list[int] = []

    def load_deployed(server: TritonServer) -> None:
        if not killed and server.process_id is not None:
            killed.append(server.process_id)
            os.kill(server.process_id, signal.SIGKILL)
            server.load("multitron")

    monkeypatch.setattr(TritonServer, "_load_deployed", load_deployed)
    with TritonServer(tmp_path / "repository") as server:
        assert server.client().is_server_ready()
        assert server.process_id not in (None, *killed)
    assert "tritonserver has ended" in caplog.text
    assert "exit status -9" in caplog.text
    assert "Started GRPCInferenceService" in caplog.text, "the end of its log"


def test_free_ports_are_different_and_given_ones_stay() -> None:
    ports = server_module._chosen({"grpc": 0, "http": 8000, "metrics": 0})
    assert ports["http"] == 8000
    assert len({0, *ports.values()}) == 4


def test_no_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_TRITON_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"no Triton binary.*urls=.*in-process scorer"):
        find_triton_home()
    with pytest.raises(InputError, match="no Triton binary"), TritonServer(tmp_path / "repository"):
        pass


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    home = tmp_path / "home" / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for folder in ("bin", f"python_backend_stubs/{version}", "backends/python"):
        (home / folder).mkdir(parents=True)
    (home / "python_backend_stubs" / version / "triton_python_backend_stub").touch()
    binary = home / "bin" / "tritonserver"
    binary.write_text("#!/bin/sh\necho 'a library is missing'\nexit 3\n")
    binary.chmod(0o755)
    with pytest.raises(UnavailableError, match=r"(?s)tritonserver has ended.*exit status 3.*a library is missing"):
        TritonServer(tmp_path / "repository", triton_home=tmp_path / "home").__enter__()


def test_a_remote_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"not ready after 0\.5 s"):
        TritonServer(urls="127.0.0.1:9", start_timeout=0.5).__enter__()
    with pytest.raises(InputError, match="needs a model repository"):
        TritonServer()


def test_it_dies_with_its_parent_and_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    require_triton()
    program = (
        "import sys, time\n"
        "from serving.server import TritonServer\n"
        "with TritonServer(sys.argv[1]) as server:\n"
        "    print(server.process_id, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "repository")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not alive(pid))
    parent.stdout.close()
    # What a killed run can leave behind is removed by the next one.
    region = Path(f"/dev/shm/multitron_batch_{parent.pid}_left")
    ours = Path(f"/dev/shm/multitron_batch_{os.getpid()}_ours")
    region.touch()
    ours.touch()
    remove_dead_regions()
    assert not region.exists()
    assert ours.exists()
    ours.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "process of its model"])
def test_a_server_that_is_killed_while_it_scores(
    tmp_path: Path, model_dir: Path, vocabulary: Vocabulary, victim: str
) -> None:
    require_triton()
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

        lake.replace_partition("2026-01-05", "0.50", frames(), model_version="first", k=5, expected_lists=400)

    def rows() -> pl.DataFrame:
        return lake.read_recommendations("0.50", "2026-01-05", unpublished=True).sort("session_id", "rank")

    with TritonServer(tmp_path / "repository", stop_timeout=2.0) as server:
        deploy(model_dir, server, golden_pi=["0.50"])
        scorer = TritonScorer(server.urls, server.client, patience=1.0)
        replace(scorer)
        expected, version = rows(), lake.version("recommendations")
        pid = server.process_id
        assert pid is not None
        killed, told = {
            "server": (pid, "does not answer"),
            "process of its model": (process_of_its_model(server), "process of the model has ended"),
        }[victim]
        with pytest.raises(UnavailableError, match=told):
            replace(scorer, lambda: os.kill(killed, signal.SIGKILL))
        if victim == "server":
            wait_until(lambda: not process_group(pid))
        assert lake.version("recommendations") == version  # readers still have the whole old partition
    # The night is run again: a new server finds what was live, and the table ends exact.
    with TritonServer(tmp_path / "repository") as again:
        replace(again.scorer())
    assert rows().drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(rows()["score"], expected["score"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "process of its model"])
def test_two_servers_share_the_work_and_one_can_go(
    tmp_path: Path, model_dir: Path, vocabulary: Vocabulary, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    require_triton()
    caplog.set_level("INFO", "serving.triton_scorer")
    sessions = some_sessions(vocabulary, 300)
    with TritonServer(tmp_path / "repository") as first:
        deploy(model_dir, first, golden_pi=["0.50"])
        with (
            TritonServer(tmp_path / "repository", log_file=tmp_path / "second.log", stop_timeout=2.0) as second,
            TritonServer(urls=[*first.urls, *second.urls]) as both,
        ):
            options = {"vocabulary": vocabulary, "window_sessions": 50, "batch_sessions": 8}
            frames = score_sessions(sessions, "0.50", 5, scorer=both.scorer(), **options)
            found = [next(frames)]
            answered = [answers(server) for server in (first, second)]
            if victim == "server":
                second.stop()
            else:
                os.kill(process_of_its_model(second), signal.SIGKILL)
            found += list(frames)
        expected = list(score_sessions(sessions, "0.50", 5, scorer=first.scorer(), **options))
    assert min(answered) > 0
    assert 1 <= caplog.text.count("no answer from") <= 4, "beyond the requests in flight, it was asked again"
    assert pl.concat(found).drop("score").equals(pl.concat(expected).drop("score"))


def answers(server: TritonServer) -> int:
    """Requests that a server has answered since it started."""
    (statistics,) = server.client().get_inference_statistics("multitron").model_stats
    return int(statistics.inference_stats.success.count)


def test_a_name_stands_for_all_its_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, None, None, None, (host, 8001)) for host in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    found.append((socket.AF_INET6, None, None, None, ("fd00::1", 8001)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert server_module._addresses("multitron-triton:8001") == ["10.0.0.1:8001", "10.0.0.2:8001"]
    monkeypatch.undo()
    assert server_module._addresses("localhost:8001") == ["localhost:8001"]
    with pytest.raises(InputError, match="host:port"):
        server_module._addresses("http://triton")
    with pytest.raises(UnavailableError, match="name is not known"):
        server_module._addresses("no-such-machine.invalid:8001")


@pytest.mark.slow
def test_a_remote_handle_and_wrong_requests(tmp_path: Path, model_dir: Path, vocabulary: Vocabulary) -> None:
    require_triton()
    with TritonServer(tmp_path / "repository") as embedded:
        with TritonServer(urls=embedded.urls) as remote, pytest.raises(InputError, match="repository"):
            deploy(model_dir, remote)
        with TritonServer(tmp_path / "repository", urls=embedded.urls) as remote:
            deploy(model_dir, remote, golden_pi=["0.50"])
        # The same server under two addresses: requests take turns.
        with TritonServer(urls=[*embedded.urls, *embedded.urls]) as remote:
            sessions = some_sessions(vocabulary, 60)
            frame = next(iter(score_sessions(sessions, "0.50", 5, scorer=remote.scorer(), vocabulary=vocabulary)))
            assert len(frame) == 300
            ask, live = remote.scorer().top_k, remote.live_model()
            pi = np.full((1, 2), 0.5, np.float32)
            one = np.ones((1, 1), np.int64)
            for request, message in (
                (ScoringRequest(one * 9999, one[0], pi, 5), "item indices"),
                (ScoringRequest(one, one[0] * 3, pi, 5), "lengths"),
                (ScoringRequest(one, one[0], pi, 9999), "k is 9999"),
                (ScoringRequest(np.ones((1, 11), np.int64), one[0], pi, 5), "11 steps"),
                (ScoringRequest(one, one[0], pi * np.nan, 5), "finite"),
                (ScoringRequest(one, one[0], pi, 5, assortment=np.ones(3, bool)), "assortment"),
            ):
                with pytest.raises(InputError, match=message):
                    ask(request, live)
            with pytest.raises(UnavailableError, match="not served any more"):
                ask(ScoringRequest(one, one[0], pi, 5), dataclasses.replace(live, version=8))
