"""What docs/security.md promises, looked at from outside: the code, the artefacts, the sockets, the stored events."""

from __future__ import annotations

import ast
import io
import os
import pickletools
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.shop.home import load_shop
from serving.server import TritonServer
from serving.triton_home import find_triton_home
from tests.orchestration.conftest import DAYS, K, copied_shop

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(
    path for package in ("multitron_core", "serving", "orchestration") for path in (ROOT / package).rglob("*.py")
)
UNPICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "pandas"}
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_unpickles(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else {
                (node.module or "").split(".")[0]
            }  # fmt: skip
            allowed = {"pickle"} if path.name == "official.py" else set()  # for the name of an exception
            assert not names & UNPICKLERS - allowed, f"{path}:{node.lineno}"
        if isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
            where = f"{path}:{node.lineno}: {called}"
            if called == "torch.load":
                assert options.get("weights_only") == "True", where
            if called in ("np.load", "numpy.load"):
                assert options.get("allow_pickle") == "False", where
            assert called not in ("eval", "exec", "pickle.loads", "pickle.load", "torch.save", "os.system"), where
            assert options.get("shell") != "True", where


def pickled(content: bytes) -> bool:
    """Whether bytes are a pickle: they disassemble as one from protocol to stop."""
    if len(content) < 4 or content[0] != 0x80 or not 2 <= content[1] <= 5:
        return False
    try:
        pickletools.dis(content, out=io.StringIO())
    except Exception:  # noqa: BLE001 (whatever it says, it is no pickle)
        return False
    return True


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    yield str(path), path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield f"{path}: {name}", archive.read(name)


def test_no_artefact_is_pickled(deployed_home: Path, tmp_path: Path) -> None:
    import pickle

    assert pickled(pickle.dumps({"a": [1, 2]})), "the test can see one"
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        shop.ingest()
        assert shop.score(DAYS[0], "0.50").success
        files = [path for path in shop.home.rglob("*") if path.is_file()]
        assert len(files) > 20
        found = [name for path in files for name, content in members(path) if pickled(content)]
    assert found == []


def listening(process_ids: set[int]) -> set[str]:
    """The addresses that processes listen on, from the kernel's tables; hexadecimal, as they stand there."""
    sockets = set()
    for process_id in process_ids:
        for link in Path(f"/proc/{process_id}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].rpartition(":")[0])
    return found


@pytest.mark.slow
def test_the_server_listens_on_loopback_only(tmp_path: Path) -> None:
    try:
        find_triton_home()
    except Exception as error:  # noqa: BLE001
        pytest.skip(str(error))
    with TritonServer(tmp_path / "repository") as server:
        assert server.process_id is not None
        assert listening({server.process_id}) <= {"0100007F", "0000000000000000FFFF00000100007F"}


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and the first as an IPv6 address, as the kernel writes them."""


def descendants(process_id: int) -> set[int]:
    """A process and all that it has started."""
    found, look = set(), [process_id]
    while look:
        each = look.pop()
        found.add(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            look += [int(child) for child in task.read_text().split()]
    return found


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_ui_and_its_code_server_listen_on_loopback_only(deployed_home: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        copied_shop(deployed_home, tmp_path / "shop") as shop,
        (tmp_path / "ui.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli.ui", "--home", str(shop.home), "--port", str(port)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            end = time.monotonic() + 120
            while not answers(port):
                assert process.poll() is None, (tmp_path / "ui.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.5)
            everything = descendants(process.pid)
            commands = [Path(f"/proc/{each}/cmdline").read_text() for each in everything]
            found = listening(everything)
        finally:
            process.terminate()
            process.wait(60)
    for part in ("webserver", "daemon", "grpc"):
        assert any(part in command for command in commands), f"no {part} among {commands}"
    assert found, "the UI at least listens"
    assert found <= LOOPBACK


REFUSING = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = f"<Error><Code>AccessDenied</Code><Message>bad key {sys.argv[1]}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""An object store that says the caller's own secret in its answers, as careless ones do.

It is a process of its own: deltalake keeps the interpreter to itself while it asks whether a table is there.
"""


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of the store."""
    with subprocess.Popen([sys.executable, "-c", REFUSING, SECRET], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


@pytest.mark.parametrize("job", ["ingestion", "housekeeping_of_tables"])
def test_a_storage_secret_is_in_no_event_of_a_run(
    job: str, refusing: str, deployed_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "SECRET_ACCESS_KEY": SECRET,
        "REGION": "us-east-1",
        "ENDPOINT_URL": refusing,
        "ALLOW_HTTP": "true",
    }
    for name, value in options.items():
        monkeypatch.setenv(f"MULTITRON_STORAGE_AWS_{name}", value)
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        shop.change(tables={"root": "s3://bucket/shop"}, scoring={"pi": ["0.50"], "k": K})
        with pytest.raises(OSError, match=SECRET):
            shop.lake.open("events")  # what the library says
        result = shop.run(job, str(DAYS[0]) if job == "ingestion" else None)
        assert not result.success
        stored = "".join(str(entry) for entry in shop.instance.all_logs(result.run_id))
    assert "object store denies" in stored
    assert SECRET not in stored
    assert "AKIAIOSFODNN7EXAMPLE" not in stored


def test_secrets_are_in_no_text_of_ours(deployed_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", SECRET)
    shop = load_shop(deployed_home)
    assert SECRET not in repr(shop.lake()) + repr(shop) + shop.settings.model_dump_json()


def test_an_unforeseen_exception_with_a_secret_is_stored_without_it(
    deployed_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", SECRET)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"a bug that prints {SECRET}")

    monkeypatch.setattr("orchestration.lifecycle.tables.apply_retention", fail)
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        result = shop.run("housekeeping_of_tables")
        stored = "".join(str(entry) for entry in shop.instance.all_logs(result.run_id))
    assert not result.success
    assert "ZeroDivisionError: a bug that prints ***" in stored
    assert SECRET not in stored
