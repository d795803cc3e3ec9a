"""The guarantees of docs/security.md: no pickles, sockets on loopback only, no secrets in stored events.

`test_ui_in_browser.py` tests the sockets of the UI.
"""

from __future__ import annotations

import ast
import io
import pickletools
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from multitron_core.errors import MultitronError
from orchestration.shop.home import load_shop
from serving.server import TritonServer
from serving.triton_home import find_triton_home
from tests.orchestration.conftest import DAYS, K, ShopInTest, copied_shop
from tests.orchestration.sockets import LOOPBACK, listening

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(
    path for package in ("multitron_core", "serving", "orchestration") for path in (ROOT / package).rglob("*.py")
)
UNPICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "pandas"}
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_calls_no_unpickler(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else {
                (node.module or "").split(".")[0]
            }  # fmt: skip
            allowed = {"pickle"} if path.name == "official.py" else set()  # for the name of an exception only
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
    """Whether bytes are a pickle: they disassemble as one, from protocol to stop."""
    if len(content) < 4 or content[0] != 0x80 or not 2 <= content[1] <= 5:
        return False
    try:
        pickletools.dis(content, out=io.StringIO())
    except Exception:  # noqa: BLE001 (any error: it is not a pickle)
        return False
    return True


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The content of a file, and of each member of a zip archive, by name."""
    yield str(path), path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield f"{path}: {name}", archive.read(name)


def test_artefacts_of_a_night_are_not_pickled(shop: ShopInTest) -> None:
    import pickle

    assert pickled(pickle.dumps({"a": [1, 2]})), "the test detects a pickle"
    assert shop.score(DAYS[0], "0.50").success
    files = [path for path in shop.home.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [name for path in files for name, content in members(path) if pickled(content)] == []


@pytest.mark.slow
def test_triton_server_listens_on_loopback_only(tmp_path: Path) -> None:
    try:
        find_triton_home()
    except MultitronError as error:
        pytest.skip(str(error))
    with TritonServer(tmp_path / "repository") as server:
        assert server.process_id is not None
        found = listening({server.process_id})
        assert found, "it listens at least for gRPC"
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
"""An object store that repeats the secret of the caller in its answers.

It is a separate process: deltalake holds the interpreter lock while it checks whether a table exists.
"""


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of an object store that refuses every request."""
    with subprocess.Popen([sys.executable, "-c", REFUSING, SECRET], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


@pytest.mark.parametrize("job", ["ingestion", "housekeeping_of_tables"])
def test_events_of_a_run_hold_no_storage_secret(
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
            shop.lake.open("events")  # the message of the library
        result = shop.run(job, str(DAYS[0]) if job == "ingestion" else None)
        assert not result.success
        stored = "".join(str(entry) for entry in shop.instance.all_logs(result.run_id))
    assert "object store denies" in stored
    assert SECRET not in stored
    assert "AKIAIOSFODNN7EXAMPLE" not in stored


def test_shop_shows_no_secret_as_text(deployed_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", SECRET)
    shop = load_shop(deployed_home)
    assert SECRET not in repr(shop.lake()) + repr(shop) + shop.settings.model_dump_json()


def test_events_of_a_run_redact_an_unexpected_exception(
    deployed_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", SECRET)

    # A bug that prints a secret cannot be provoked otherwise.
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"a bug that prints {SECRET}")

    monkeypatch.setattr("orchestration.lifecycle.tables.apply_retention", fail)
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        result = shop.run("housekeeping_of_tables")
        stored = "".join(str(entry) for entry in shop.instance.all_logs(result.run_id))
    assert not result.success
    assert "ZeroDivisionError: a bug that prints ***" in stored
    assert SECRET not in stored
