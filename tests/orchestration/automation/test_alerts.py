"""Alerts, against a real HTTP server on loopback."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from multitron_core.errors import InputError, UnavailableError
from orchestration.automation.alerts import MAX_ERROR, WEBHOOK_VARIABLE, Alert, send, webhook
from orchestration.automation.sensors import VERDICT_IS_COMING, deliver, failed_run_alerts, missing_alerts
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, GRID, ShopInTest, copied_shop

ALERT = Alert("run_failed", "scoring failed", "2026-03-01|0.50", "no answer", "again", id="run 1", run_id="1")


class Webhook:
    """A server that answers as it is told and keeps what it was sent."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.answers: list[int] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.got.append(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/s3cret-path"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    hook = Webhook()
    monkeypatch.setenv(WEBHOOK_VARIABLE, hook.url)
    monkeypatch.setattr("orchestration.automation.alerts.FIRST_PAUSE", 0.01)
    yield hook
    hook.close()


@pytest.fixture
def shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        yield shop


def test_a_message_says_what_where_and_how_to_do_it_again(hook: Webhook) -> None:
    send(ALERT, hook.url)
    (got,) = hook.got
    assert got["text"] == "scoring failed\nno answer\nagain: again"
    assert (got["kind"], got["partition"], got["command"], got["run_id"]) == (
        "run_failed", "2026-03-01|0.50", "again", "1",
    )  # fmt: skip


def test_a_webhook_that_is_away_for_a_moment_is_tried_again_a_refusal_is_not(hook: Webhook) -> None:
    hook.answers = [503, 429]
    send(ALERT, hook.url, first_pause=0.01)
    assert len(hook.got) == 1
    hook.answers = [404, 200]
    with pytest.raises(InputError, match="404"):
        send(ALERT, hook.url, first_pause=0.01)
    assert hook.answers == [200], "a refusal is not tried again"
    hook.answers = [500] * 3
    with pytest.raises(UnavailableError) as raised:
        send(ALERT, hook.url, first_pause=0.01)
    assert "s3cret" not in str(raised.value), "the address is a secret"


def test_secrets_and_long_errors_do_not_leave(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    send(Alert("run_failed", "t", None, "key wJalrXUtnFEMI " + "x" * 5_000, "", id="1"), hook.url)
    assert "wJalrXUtnFEMI" not in json.dumps(hook.got)
    assert len(hook.got[0]["error"]) <= MAX_ERROR + 1


@pytest.mark.parametrize("url", ["ftp://example.com/x", "no address", "http://example.com/hook", "file:///etc/passwd"])
def test_a_webhook_is_an_encrypted_address_or_on_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK_VARIABLE, url)
    with pytest.raises(InputError, match=WEBHOOK_VARIABLE):
        webhook()


def test_no_alert_is_lost_while_the_webhook_is_away(hook: Webhook) -> None:
    alerts = [(ALERT, "1"), (ALERT, "2"), (ALERT, "3")]
    hook.answers = [200] + [500] * 3
    stood = deliver(alerts, "3", before="0", log=lambda _: None)
    assert stood.cursor == "1"
    hook.answers = [500] * 3
    with pytest.raises(UnavailableError):
        deliver(alerts[1:], "3", before="1", log=lambda _: None)
    assert deliver(alerts[1:], "3", before="1", log=lambda _: None).cursor == "3"
    assert len(hook.got) == 3


def test_without_a_webhook_alerts_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)
    said: list[str] = []
    assert deliver([(ALERT, "1")], "1", before=None, log=said.append).cursor == "1"
    assert "scoring failed" in said[0]


def test_a_failed_run_is_told_once_with_a_command_that_works(shop: ShopInTest, hook: Webhook) -> None:
    loaded, start = load_shop(shop.home), dt.datetime.now(dt.UTC)
    _, cursor = failed_run_alerts(loaded, shop.instance, None, start)
    file = shop.home / "raw" / f"events-{DAYS[0]}.csv"
    content = file.read_text()
    file.write_text(content.replace("T10", "Tx"))
    assert not shop.run("ingestion", str(DAYS[0])).success
    assert failed_run_alerts(loaded, shop.instance, cursor, dt.datetime.now(dt.UTC))[0] == [], "may be retried"
    later = dt.datetime.now(dt.UTC) + 2 * VERDICT_IS_COMING
    alerts, cursor = failed_run_alerts(loaded, shop.instance, cursor, later)
    deliver(alerts, cursor, before=None, log=lambda _: None)
    (got,) = hook.got
    assert got["partition"] == str(DAYS[0])
    assert "180 of 182 lines are bad" in got["error"]
    assert failed_run_alerts(loaded, shop.instance, cursor, later + dt.timedelta(minutes=1))[0] == []
    file.write_text(content)
    words = shlex.split(got["command"])
    assert words[0] == f"MULTITRON_HOME={shop.home}"
    assert (words[-2], words[-1]) == ("--partition", str(DAYS[0]))


@pytest.mark.slow
def test_the_command_of_an_alert_does_the_work_again(shop: ShopInTest) -> None:
    from orchestration.automation.rerun_commands import rerun_command
    from orchestration.runtime.instance import prepare_instance

    loaded = load_shop(shop.home)
    prepare_instance(loaded)
    shop.ingest()
    assert shop.run("session_preparation", str(DAYS[0])).success
    command = rerun_command(loaded, "scoring", f"{DAYS[0]}|{GRID[0]}")
    root = Path(__file__).resolve().parents[3]
    made = subprocess.run(
        ["bash", "-c", command], cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert shop.lake.publications()["pi"].unique().to_list() == [GRID[0]], "checked and released"
    assert str(Path(sys.executable).parent) in command


def test_a_night_that_is_missing_at_its_deadline_is_told_once_and_so_is_its_completion(
    shop: ShopInTest, hook: Webhook
) -> None:
    shop.ingest()
    assert shop.score(DAYS[0], "0.00").success
    shop.change(night={"catch_up_days": 1})
    loaded = load_shop(shop.home)
    before, after = (dt.datetime(2026, 3, 2, hour, tzinfo=dt.UTC) for hour in (5, 7))
    assert missing_alerts(loaded, shop.instance, None, before) == []
    alerts = missing_alerts(loaded, shop.instance, None, after)
    cursor = alerts[-1][1]
    deliver(alerts, cursor, before=None, log=lambda _: None)
    (got,) = hook.got
    assert got["kind"] == "preferences_missing"
    assert got["partition"] == f"{DAYS[0]}|0.50"
    assert "late" in got["error"]
    assert f"'{DAYS[0]}|0.50'" in got["command"]
    assert missing_alerts(loaded, shop.instance, cursor, after) == []
    assert shop.score(DAYS[0], "0.50").success
    (told,) = missing_alerts(loaded, shop.instance, cursor, after)
    assert told[0].kind == "night_complete"
