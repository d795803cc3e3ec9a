"""Alerts: what an operator is told without looking, posted to a webhook.

The webhook's address is a secret and comes from the environment, `MULTITRON_ALERT_WEBHOOK`. A message is one JSON
object; `text` is what Slack, Mattermost, Teams and the like show, the other fields are for programs.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Literal

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.redaction import redacted

WEBHOOK_VARIABLE = "MULTITRON_ALERT_WEBHOOK"
TIMEOUT = 5.0
"""Seconds that one attempt may take."""
ATTEMPTS = 3
FIRST_PAUSE = 1.0
"""Seconds between the first two attempts; then twice as long."""
MAX_ERROR = 2_000
"""Characters of an error that a message carries; chat systems refuse longer ones."""


@dataclass(frozen=True)
class Alert:
    """A message.

    Args:
        kind: what it is about; docs/runbook.md has a section for each.
        title: one line.
        partition: of the asset or run, None where it has none.
        error: what went wrong.
        command: the shell command that does the work again; empty where there is nothing to be done.
        id: the same for the same event, so that a message that came twice is known.
        run_id: of the failed run.
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
        """The message as a person reads it."""
        lines = [self.title, self.error, f"again: {self.command}" if self.command else ""]
        return "\n".join(line for line in lines if line)

    def payload(self) -> dict[str, str | None]:
        """The JSON object that is posted; secrets are blacked out, a long error is cut."""
        cut = self if len(self.error) <= MAX_ERROR else dataclasses.replace(self, error=self.error[:MAX_ERROR] + "…")
        fields: dict[str, str | None] = {"text": cut.text, **dataclasses.asdict(cut)}
        return {name: redacted(value) if value else value for name, value in fields.items()}


def webhook() -> str | None:
    """Where alerts go; None when nobody has said.

    Raises:
        InputError: it is no address, or would send messages unencrypted to another machine.
    """
    url = os.environ.get(WEBHOOK_VARIABLE, "").strip()
    if not url:
        return None
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        parts = urllib.parse.urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("not a webhook's address", where=WEBHOOK_VARIABLE, hint="give an https:// address")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise InputError(
            "alerts would leave this machine unencrypted", where=WEBHOOK_VARIABLE, hint="give an https:// address"
        )
    return url


def send(alert: Alert, url: str, *, first_pause: float = FIRST_PAUSE) -> None:
    """Post an alert; tried `ATTEMPTS` times where it may pass by itself.

    Raises:
        InputError: the webhook refuses the message.
        UnavailableError: it does not answer.
    """
    body = json.dumps(alert.payload()).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _OPENER.open(request, timeout=TIMEOUT):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise InputError(
                    "the webhook refuses the alert",
                    where=WEBHOOK_VARIABLE,
                    found=f"HTTP {error.code}",
                    hint="check its address",
                ) from None
            problem = f"HTTP {error.code}"
        except OSError as error:
            problem = redacted(str(getattr(error, "reason", error)))
        if attempt < ATTEMPTS:
            time.sleep(first_pause * 2 ** (attempt - 1))
    raise UnavailableError(
        "the webhook does not answer",
        where=WEBHOOK_VARIABLE,
        found=problem,
        hint="check its address and that it can be reached; the alert is sent again until it arrives",
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its message, to an address that nobody gave."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
