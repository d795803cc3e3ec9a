"""Send alerts to operators: to a webhook, by mail, to Slack, Teams, PagerDuty and other services.

Addresses are secrets and come from the environment. `MULTITRON_ALERT_WEBHOOK` receives each alert as one JSON object:
chat systems show its `text`, programs read the other fields. `MULTITRON_ALERT_URLS` holds addresses of services in the
notation of the library apprise, separated by spaces or new lines. They are two variables because an `https://` address
has a different meaning in each: a webhook receives the JSON object, apprise recognises the service by its host.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from multitron_core.errors import InputError, MultitronError, UnavailableError
from multitron_core.utils.redaction import redacted

if TYPE_CHECKING:
    from apprise import NotifyBase  # imported in functions: it takes 0.2 s, and few processes send alerts

WEBHOOK_VARIABLE = "MULTITRON_ALERT_WEBHOOK"
URLS_VARIABLE = "MULTITRON_ALERT_URLS"
TIMEOUT = 5.0
"""Maximum seconds of one attempt at the webhook."""
SERVICE_TIMEOUT = 10.0
"""Maximum seconds of one attempt at another service: logging in to a mail server takes a few."""
ATTEMPTS = 3
FIRST_PAUSE = 1.0
"""Seconds between the first two attempts; doubled after each further attempt."""
MAX_ERROR = 2_000
"""Maximum characters of the error in a message; chat systems refuse longer messages."""
ENCRYPTED = frozenset({
    "betterstack", "discord", "gchat", "ilert", "jsons", "mailto", "mailtos", "mmosts", "ntfys", "opsgenie",
    "pagerduty", "rockets", "slack", "splunk", "tgram", "victorops", "webex", "workflow", "workflows", "wxteams",
    "zulip",
})  # fmt: skip
"""Schemes that send nothing unencrypted. A list, because apprise also files services under "secure" that use http://."""
PLAIN = frozenset({"json", "mailto", "mmost", "ntfy", "rocket"})
"""Schemes that may send unencrypted, allowed to this machine only, for example to a mail relay."""


@dataclass(frozen=True)
class Alert:
    """A message.

    Args:
        kind: the event; docs/runbook.md has a section for each kind.
        title: one line.
        partition: partition key of the run or night; None without partition.
        error: what went wrong.
        command: the re-run command; empty if nothing has to be done.
        id: identifies the event: two messages with the same id are duplicates.
        run_id: of the failed run; None for alerts about a night.
    """

    kind: Literal["run_failed", "preferences_missing", "night_complete"]
    title: str
    partition: str | None
    error: str
    command: str
    id: str
    run_id: str | None = None

    @property
    def text(self) -> str:
        """The message as plain text: title, error, re-run command."""
        lines = [self.title, self.error, f"re-run: {self.command}" if self.command else ""]
        return "\n".join(line for line in lines if line)

    def payload(self) -> dict[str, str | None]:
        """The JSON object of the message: secrets are redacted, an error is cut after `MAX_ERROR` characters."""
        short = self if len(self.error) <= MAX_ERROR else dataclasses.replace(self, error=self.error[:MAX_ERROR] + "…")
        fields: dict[str, str | None] = {"text": short.text, **dataclasses.asdict(short)}
        return {name: redacted(value) if value else value for name, value in fields.items()}


Recipient = Callable[[Alert], None]
"""Sends one alert to one address, or raises InputError or UnavailableError."""


def recipients(*, first_pause: float = FIRST_PAUSE) -> list[Recipient]:
    """The recipients configured in the environment; empty if there are none.

    Args:
        first_pause: seconds between the first two attempts at a recipient, doubled after each.

    Raises:
        InputError: an address is wrong, or would send alerts unencrypted to another machine.
    """
    url = webhook()
    posts: list[Recipient] = [partial(send, url=url, first_pause=first_pause)] if url else []
    to_service = partial(notify, first_pause=first_pause)
    return [*posts, *(partial(to_service, service=service, name=name) for name, service in services().items())]


def send_to_all(alert: Alert, recipients: Sequence[Recipient]) -> list[MultitronError]:
    """Send an alert to every recipient at the same time.

    An alert counts as sent when one recipient has received it: a recipient that always fails must not block the others.

    Args:
        alert: the message.
        recipients: one or more.

    Returns:
        One error per recipient that did not receive it.

    Raises:
        InputError: every recipient refuses it.
        UnavailableError: no recipient received it, and a later attempt may succeed.
    """

    def error_of(recipient: Recipient) -> MultitronError | None:
        try:
            recipient(alert)
        except MultitronError as error:
            return error
        return None

    with ThreadPoolExecutor(len(recipients)) as pool:
        errors = [error for error in pool.map(error_of, recipients) if error]
    if len(errors) < len(recipients):
        return errors
    if len(errors) == 1:
        raise errors[0]
    transient = any(isinstance(error, UnavailableError) for error in errors)
    raise (UnavailableError if transient else InputError)(
        "no recipient received the alert: " + " | ".join(map(str, errors))
    )


def webhook() -> str | None:
    """The address of the webhook; None if the variable is empty or not set.

    Raises:
        InputError: it is not an address, or would send messages unencrypted to another machine.
    """
    url = os.environ.get(WEBHOOK_VARIABLE, "").strip()
    if not url:
        return None
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # brackets without an IPv6 address
        parts = urllib.parse.urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("not the address of a webhook", where=WEBHOOK_VARIABLE, hint="use an https:// address")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise InputError(
            "alerts would leave this machine unencrypted", where=WEBHOOK_VARIABLE, hint="use an https:// address"
        )
    return url


def services() -> dict[str, NotifyBase]:
    """The services of `MULTITRON_ALERT_URLS`, by their names in errors and logs.

    Raises:
        InputError: an address is wrong or incomplete, would send alerts unencrypted to another machine, or switches off
            a protection (certificates, redirects, the report of failures).
    """
    import apprise

    asset = apprise.AppriseAsset(
        http_redirects=False,
        service_timeout=SERVICE_TIMEOUT,
        storage_mode="memory",
        pgp_autogen=False,
        pem_autogen=False,
    )
    found = {}
    for number, url in enumerate(os.environ.get(URLS_VARIABLE, "").split(), start=1):
        where = f"{URLS_VARIABLE}, address {number}"
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            raise InputError(
                "not the complete address of an alert service",
                where=where,
                hint="compare it with the documentation of apprise, for example mailtos://user:password@example.com",
            )
        scheme = service.url(privacy=True).partition(":")[
            0
        ]  # the attribute `schema` is http or https for some services
        if not _is_encrypted(service, scheme) and not (scheme in PLAIN and _is_loopback(_host_of(service))):
            raise InputError(
                "alerts could leave this machine unencrypted",
                where=where,
                found=f"{scheme}://",
                hint=f"use one of {', '.join(sorted(ENCRYPTED))}",
            )
        if not service.verify_certificate or service.redirects or service.optional:
            raise InputError(
                "an option of the address switches off a protection",
                where=where,
                hint="remove verify=no, redirect=yes and optional=yes",
            )
        found[f"{service.service_name} (address {number})"] = service
    return found


def _is_encrypted(service: NotifyBase, scheme: str) -> bool:
    if scheme in ("mailto", "mailtos"):  # mailto:// too uses TLS at providers that apprise knows
        return getattr(service, "secure_mode", None) in ("ssl", "starttls")
    return scheme in ENCRYPTED


def _host_of(service: NotifyBase) -> str:
    """The machine that a service connects to; for mail it is the server, not the domain of the sender."""
    return str(getattr(service, "smtp_host", None) or service.host).strip("[]")


def send(alert: Alert, url: str, *, first_pause: float = FIRST_PAUSE) -> None:
    """Post an alert to a webhook, with up to `ATTEMPTS` attempts while it does not answer.

    Args:
        alert: the message.
        url: address of the webhook.
        first_pause: seconds between the first two attempts, doubled after each.

    Raises:
        InputError: the webhook refuses the message.
        UnavailableError: it does not answer.
    """
    body = json.dumps(alert.payload()).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    _with_retries(partial(_post, request), first_pause)


def notify(alert: Alert, service: NotifyBase, name: str, *, first_pause: float = FIRST_PAUSE) -> None:
    """Send an alert to a service, with up to `ATTEMPTS` attempts while it does not answer.

    Args:
        alert: the message.
        service: one of `services()`.
        name: name of the service in errors.
        first_pause: seconds between the first two attempts, doubled after each.

    Raises:
        InputError: the service refuses the message.
        UnavailableError: it does not answer.
    """
    _with_retries(partial(_notify, alert, service, name), first_pause)


def _with_retries(attempt: Callable[[], None], first_pause: float) -> None:
    for pause in (first_pause * 2**number for number in range(ATTEMPTS - 1)):
        try:
            return attempt()
        except UnavailableError:
            time.sleep(pause)
    return attempt()


def _post(request: urllib.request.Request) -> None:
    try:
        with _OPENER.open(request, timeout=TIMEOUT):
            return
    except urllib.error.HTTPError as error:
        raise _refused_or_unavailable("the webhook", WEBHOOK_VARIABLE, f"HTTP {error.code}", error.code) from None
    except OSError as error:
        problem = redacted(str(getattr(error, "reason", error)))
        raise _refused_or_unavailable("the webhook", WEBHOOK_VARIABLE, problem) from None


def _notify(alert: Alert, service: NotifyBase, name: str) -> None:
    import apprise

    fields = alert.payload()
    lines = (fields["error"], *(f"{label}: {fields[key]}" for label, key in _LINES.items() if fields[key]))
    body = "\n".join(line for line in lines if line)
    sent = apprise.Apprise(service).notify(
        body, fields["title"] or "", notify_type=_TYPES[alert.kind], body_format="text"
    )
    if not sent:
        # Only the log of the library has the HTTP status. Its texts are not shown: they can hold parts of the address.
        statuses = [int(status) for entry in sent.logs() for status in _STATUS.findall(entry.message)]
        problem = f"HTTP {statuses[-1]}" if statuses else sent.status.name.lower()
        raise _refused_or_unavailable(name, URLS_VARIABLE, problem, statuses[-1] if statuses else None)


def _refused_or_unavailable(name: str, where: str, found: str, status: int | None = None) -> MultitronError:
    """The error of a failed attempt: HTTP 4xx except 429 is a refusal, everything else is transient."""
    if status is not None and status < 500 and status != 429:
        return InputError(f"{name} refuses the alert", where=where, found=found, hint="check its address")
    return UnavailableError(
        f"{name} does not answer",
        where=where,
        found=found,
        hint="check its address and the network; the alert is sent again at the next tick",
    )


_TYPES = {
    "run_failed": "failure",
    "preferences_missing": "warning",
    "night_complete": "success",
}
"""The apprise notification type of each kind."""
_LINES = {"re-run": "command", "partition": "partition", "run": "run_id", "alert": "id"}
"""Lines below the error in a message: label -> field of the payload."""
_STATUS = re.compile(r"\berror=(\d{3})\b")
logging.getLogger("apprise").propagate = False  # its log can hold parts of an address, see `_notify`


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: the POST would become a GET without its body, to an address that is not configured."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
