"""Shops, runs and receivers of alerts for the tests of automation."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.automation.alerts import URLS_VARIABLE, WEBHOOK_VARIABLE
from orchestration.automation.sensors import plan
from orchestration.shop.home import load_shop
from tests.orchestration.conftest import ShopInTest, copied_shop

MORNING = dt.datetime(2026, 3, 2, 2, tzinfo=dt.UTC)
"""After the night of the first day has begun."""


@pytest.fixture
def bare_shop(deployed_home: Path, tmp_path: Path) -> Iterator[ShopInTest]:
    """A shop with a deployed model, raw files and an empty event log; one night is open at a time."""
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        shop.change(night={"catch_up_days": 1})
        yield shop


def requests(shop: ShopInTest, now: dt.datetime = MORNING) -> list[dg.RunRequest]:
    """The runs that the sensor `nights` requests."""
    return plan(load_shop(shop.home), shop.instance, now)[0]


def waits(shop: ShopInTest, now: dt.datetime = MORNING) -> str:
    """What the sensor `nights` waits for, while it requests nothing."""
    requested, reasons = plan(load_shop(shop.home), shop.instance, now)
    assert not requested
    return "\n".join(reasons)


def execute(shop: ShopInTest, requested: list[dg.RunRequest]) -> list[bool]:
    """Run what is requested; returns which runs succeed."""
    results = []
    for request in requested:
        assert request.job_name
        results.append(shop.run(request.job_name, request.partition_key, tags=dict(request.tags)).success)
    return results


class Webhook:
    """A webhook on loopback: answers with the queued statuses, then with 200; keeps what it accepts."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests += 1
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.received.append(json.loads(body))
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", outer.url)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/s3cret-path"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A webhook, and the only recipient of the environment."""
    hook = Webhook()
    monkeypatch.setenv(WEBHOOK_VARIABLE, hook.url)
    monkeypatch.delenv(URLS_VARIABLE, raising=False)
    yield hook
    hook.close()
