"""Alerts, received by a real HTTP server and a real mail server on loopback."""

from __future__ import annotations

import email
import io
import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from email.message import Message
from email.policy import default as email_policy

import apprise
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
from orchestration.automation.sensors import deliver
from tests.orchestration.automation.conftest import Webhook

ALERT = Alert("run_failed", "scoring failed", "2026-03-01|0.50", "no answer", "dagster x", id="run 1", run_id="1")


def test_send_posts_text_and_fields_as_json(hook: Webhook) -> None:
    send(ALERT, hook.url)
    (received,) = hook.received
    assert received["text"] == "scoring failed\nno answer\nre-run: dagster x"
    assert (received["kind"], received["partition"], received["command"], received["run_id"]) == (
        "run_failed", "2026-03-01|0.50", "dagster x", "1",
    )  # fmt: skip


def test_send_retries_unless_the_webhook_refuses(hook: Webhook) -> None:
    hook.answers = [503, 429]
    send(ALERT, hook.url, first_pause=0.01)
    assert len(hook.received) == 1
    hook.answers = [404, 200]
    with pytest.raises(InputError, match="404"):
        send(ALERT, hook.url, first_pause=0.01)
    assert hook.answers == [200], "a refusal is not retried"
    hook.answers = [500] * 3
    with pytest.raises(UnavailableError) as raised:
        send(ALERT, hook.url, first_pause=0.01)
    assert "s3cret" not in str(raised.value), "the address is a secret"


def test_send_redacts_secrets_and_cuts_long_errors(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    send(Alert("run_failed", "t", None, "key wJalrXUtnFEMI " + "x" * 5_000, "", id="1"), hook.url)
    assert "wJalrXUtnFEMI" not in json.dumps(hook.received)
    assert len(hook.received[0]["error"]) <= MAX_ERROR + 1


@pytest.mark.parametrize("url", ["ftp://example.com/x", "no address", "http://example.com/hook", "file:///etc/passwd"])
def test_webhook_refuses_an_unencrypted_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK_VARIABLE, url)
    with pytest.raises(InputError, match=WEBHOOK_VARIABLE):
        webhook()


class MailServer(socketserver.ThreadingTCPServer):
    """An SMTP server on loopback, without encryption, that keeps the messages that it receives."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.received: list[Message] = []
        super().__init__(("127.0.0.1", 0), MailSession)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class MailSession(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            command = line[:4].strip().upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.received.append(email.message_from_bytes(b"".join(lines), policy=email_policy))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")


@pytest.fixture(autouse=True)
def _no_pause_between_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """apprise waits 5.5 s between two messages of a service; no option of an address changes that."""
    monkeypatch.setattr(apprise.NotifyBase, "request_rate_per_sec", 0)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server
        server.shutdown()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The output of a handler of the root logger, as Dagster has; `caplog` also gets records that do not propagate."""
    root, text = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def service(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a service of apprise at the address of `hook`."""
    monkeypatch.delenv(WEBHOOK_VARIABLE)
    monkeypatch.setenv(URLS_VARIABLE, hook.url.replace("http://", "json://"))
    (name,) = services()
    return name


def test_recipients_send_mail_with_error_command_and_run(mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert {message["To"] for message in mail.received} == {"team@example.com", "a@example.com"}
    assert mail.received[0]["Subject"] == "scoring failed"
    body = mail.received[0].get_body(("plain",)).get_content()  # type: ignore[attr-defined]
    assert body.splitlines()[:5] == [
        "key *** & <b>",
        "re-run: sh a",
        "partition: 2026-03-01|0.50",
        "run: r9",
        "alert: i7",
    ]


def test_notify_names_an_unreachable_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, "mailto://shop:pa55word@127.0.0.1:9?from=shop@example.com&to=a@example.com")
    ((name, service),) = services().items()
    with pytest.raises(UnavailableError, match=r"E-Mail \(address 1\)") as raised:
        notify(ALERT, service, name, first_pause=0.01)
    assert "pa55word" not in str(raised.value)


def test_notify_retries_unless_the_service_refuses(
    hook: Webhook, service: str, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    to = services()[service]
    hook.answers = [503, 429]
    notify(ALERT, to, service, first_pause=0.01)
    assert hook.received[0]["title"] == "scoring failed"
    assert hook.received[0]["type"] == "failure"
    hook.answers = [404, 200]
    with pytest.raises(InputError, match=r"JSON \(address 1\).*404"):
        notify(ALERT, to, service, first_pause=0.01)
    assert hook.answers == [200], "a refusal is not retried"
    hook.answers = [500] * 3
    with pytest.raises(UnavailableError, match="500") as raised:
        notify(ALERT, to, service, first_pause=0.01)
    assert "s3cret" not in str(raised.value) + log.getvalue() + "".join(capfd.readouterr()), "the address is a secret"


@pytest.mark.parametrize("to", ["webhook", "service"])
def test_recipients_follow_no_redirect(to: str, hook: Webhook, request: pytest.FixtureRequest) -> None:
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
def test_services_refuse_unencrypted_or_unprotected_addresses(
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
def test_services_accept_the_addresses_of_the_manual(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, url)
    (found,) = services()
    assert name in found


def test_services_allow_only_schemes_that_apprise_has() -> None:
    offered = apprise.Apprise().details()["schemas"]
    encrypted = {scheme for each in offered for scheme in each["secure_protocols"] or ()}
    plain = {scheme for each in offered for scheme in each["protocols"] or ()}
    assert encrypted - plain >= ENCRYPTED - {"mailto"}
    assert plain >= PLAIN


def test_redacted_hides_each_alert_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, "jsons://example.com/one\n tgram://123:abc/two")
    assert redacted("at tgram://123:abc/two, jsons://example.com/one") == "at ***, ***"


def test_deliver_succeeds_if_one_recipient_receives_the_alert(
    hook: Webhook, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"mailto://127.0.0.1:{mail.server_address[1]}?from=shop@example.com&to=team@example.com"
    monkeypatch.setenv(URLS_VARIABLE, address)
    hook.answers = [404] * 2
    logged: list[str] = []
    to = recipients(first_pause=0.01)
    result = deliver([(ALERT, "1"), (ALERT, "2")], "2", to, before="0", log=logged.append)
    assert (result.cursor, len(mail.received), len(hook.received)) == ("2", 2, 0)
    assert "the webhook refuses the alert" in (result.skip_reason.skip_message or "")  # type: ignore[union-attr]
    assert sum("404" in line for line in logged) == 2
    hook.answers = [404]
    mail.shutdown()
    mail.server_close()
    with pytest.raises(UnavailableError, match=r"the webhook refuses.*E-Mail \(address 1\) does not answer"):
        deliver([(ALERT, "3")], "3", to, before="2", log=logged.append)


def test_send_to_all_sends_in_parallel() -> None:
    together = threading.Barrier(4)

    def recipient(_: Alert) -> None:
        together.wait(timeout=10)  # raises unless all four recipients wait at the same time

    assert send_to_all(ALERT, [recipient] * 4) == []
