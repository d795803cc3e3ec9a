"""Alerts, against a real HTTP server on loopback."""

from __future__ import annotations

import datetime as dt
import email
import http.server
import io
import json
import logging
import os
import shlex
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.message import Message
from email.policy import default as email_policy
from pathlib import Path

import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.redaction import redacted
from orchestration.automation.alerts import (
    ENCRYPTED,
    MAX_ERROR,
    PLAIN,
    URLS_VARIABLE,
    WEBHOOK_VARIABLE,
    Alert,
    notify,
    recipients,
    send,
    send_to_all,
    services,
    webhook,
)
from orchestration.automation.sensors import VERDICT_IS_COMING, deliver, failed_run_alerts, missing_alerts
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import DAYS, GRID, ShopInTest, copied_shop

ALERT = Alert("run_failed", "scoring failed", "2026-03-01|0.50", "no answer", "again", id="run 1", run_id="1")


class Webhook:
    """A server that answers as it is told and keeps what it was sent."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.answers: list[int] = []
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests += 1
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.got.append(json.loads(body))
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", outer.url)
                self.send_header("Content-Length", "0")
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


class MailServer(socketserver.ThreadingTCPServer):
    """As much of SMTP as a client needs to deliver a message without encryption."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.got: list[Message] = []
        super().__init__(("127.0.0.1", 0), MailSession)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class MailSession(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            command = line[:4].strip().upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.got.append(email.message_from_bytes(b"".join(lines), policy=email_policy))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server
        server.shutdown()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a handler of the whole process sees, as Dagster's does; `caplog` also listens where a handler does not."""
    root, text = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def service(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a service that apprise reaches over HTTP: the server of `hook`."""
    monkeypatch.delenv(WEBHOOK_VARIABLE)
    monkeypatch.setenv(URLS_VARIABLE, hook.url.replace("http://", "json://"))
    (name,) = services()
    return name


def test_a_mail_carries_title_error_command_and_run(mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = mail.server_address[1]
    monkeypatch.setenv(
        URLS_VARIABLE, f"mailto://127.0.0.1:{port}?from=shop@example.com&to=team@example.com,a@example.com"
    )
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    alert = Alert(
        "run_failed", "scoring failed", "2026-03-01|0.50", "key wJalrXUtnFEMI & <b>", "sh a", id="i7", run_id="r9"
    )
    (recipient,) = recipients()
    recipient(alert)
    assert {message["To"] for message in mail.got} == {"team@example.com", "a@example.com"}
    assert mail.got[0]["Subject"] == "scoring failed"
    body = mail.got[0].get_body(("plain",)).get_content()  # type: ignore[attr-defined]
    assert body.splitlines()[:5] == [
        "key *** & <b>",
        "again: sh a",
        "partition: 2026-03-01|0.50",
        "run: r9",
        "alert: i7",
    ]


def test_a_mail_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, "mailto://shop:pa55word@127.0.0.1:9?from=shop@example.com&to=a@example.com")
    ((name, service),) = services().items()
    with pytest.raises(UnavailableError, match=r"E-Mail \(address 1\)") as raised:
        notify(ALERT, service, name, first_pause=0.01)
    assert "pa55word" not in str(raised.value)


def test_a_service_that_is_away_is_tried_again_a_refusal_is_not(
    hook: Webhook, service: str, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    to = services()[service]
    hook.answers = [503, 429]
    notify(ALERT, to, service, first_pause=0.01)
    assert hook.got[0]["title"] == "scoring failed"
    assert hook.got[0]["type"] == "failure"
    hook.answers = [404, 200]
    with pytest.raises(InputError, match=r"JSON \(address 1\).*404"):
        notify(ALERT, to, service, first_pause=0.01)
    assert hook.answers == [200], "a refusal is not tried again"
    hook.answers = [500] * 3
    with pytest.raises(UnavailableError, match="500") as raised:
        notify(ALERT, to, service, first_pause=0.01)
    assert "s3cret" not in str(raised.value) + log.getvalue() + "".join(capfd.readouterr()), "the address is a secret"


@pytest.mark.parametrize("to", ["webhook", "service"])
def test_a_redirect_is_not_followed(to: str, hook: Webhook, request: pytest.FixtureRequest) -> None:
    if to == "service":
        request.getfixturevalue("service")
    hook.answers = [307]
    (recipient,) = recipients()
    with pytest.raises(InputError, match="307"):
        recipient(ALERT)
    assert hook.requests == 1


@pytest.mark.parametrize(
    "url",
    [
        "json://example.com/hook",
        "json://127.0.0.1@example.com/hook",
        "mailto://user:pa55word@example.com",
        "mailtos://user:pa55word@example.com?mode=insecure",
        "mailto://user:pa55word@localhost?smtp=example.com",
        "dapnet://user:pa55word@DF1ABC",
        "syslog://",
        "jsons://example.com/pa55word?verify=no",
        "jsons://example.com/pa55word?redirect=yes",
        "jsons://example.com/pa55word?optional=yes",
        "slack://pa55word",
        "file:///etc/passwd",
        "https://example.com/pa55word",
        "no address",
    ],
)
def test_a_service_is_encrypted_or_on_this_machine_and_keeps_its_protections(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], log: io.StringIO
) -> None:
    monkeypatch.setenv(URLS_VARIABLE, f"jsons://example.com/hook {url}")
    with pytest.raises(InputError, match=f"{URLS_VARIABLE}, address 2") as raised:
        services()
    assert "pa55word" not in str(raised.value) + log.getvalue() + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "Slack"),
        ("mailtos://user:password@example.com?smtp=smtp.example.com", "E-Mail"),
        ("mailto://user:password@gmail.com", "E-Mail"),
        ("pagerduty://integration@key", "Pager Duty"),
        ("workflows://prod-1.westeurope.logic.azure.com:443/workflow/signature", "MSTeams"),
        ("mmosts://chat.example.com/token", "Mattermost"),
    ],
)
def test_the_services_of_the_manual_are_taken(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, url)
    (found,) = services()
    assert name in found


def test_every_scheme_is_one_of_apprise_and_none_is_plain_but_mail() -> None:
    import apprise

    offered = apprise.Apprise().details()["schemas"]
    encrypted = {scheme for each in offered for scheme in each["secure_protocols"] or ()}
    plain = {scheme for each in offered for scheme in each["protocols"] or ()}
    assert encrypted - plain >= ENCRYPTED - {"mailto"}
    assert plain >= PLAIN


def test_each_address_of_the_list_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, "jsons://example.com/one\n tgram://123:abc/two")
    assert redacted("at tgram://123:abc/two, jsons://example.com/one") == "at ***, ***"


def test_one_recipient_that_is_away_does_not_hold_up_the_others(
    hook: Webhook, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"mailto://127.0.0.1:{mail.server_address[1]}?from=shop@example.com&to=team@example.com"
    monkeypatch.setenv(URLS_VARIABLE, address)
    hook.answers = [404] * 2
    logged: list[str] = []
    result = deliver([(ALERT, "1"), (ALERT, "2")], "2", before="0", log=logged.append)
    assert (result.cursor, len(mail.got), len(hook.got)) == ("2", 2, 0)
    assert "the webhook refuses the alert" in (result.skip_reason.skip_message or "")  # type: ignore[union-attr]
    assert sum("404" in line for line in logged) == 2
    hook.answers = [404]
    mail.shutdown()
    mail.server_close()
    with pytest.raises(UnavailableError, match=r"the webhook refuses.*E-Mail \(address 1\) does not answer"):
        deliver([(ALERT, "3")], "3", before="2", log=logged.append)


def test_recipients_are_served_at_the_same_time() -> None:
    def slow(_: Alert) -> None:
        time.sleep(0.3)

    start = time.monotonic()
    assert send_to_all(ALERT, [slow] * 4) == []
    assert time.monotonic() - start < 1.0


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
