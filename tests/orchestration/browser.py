"""The Dagster UI of a shop in headless Chromium, as a person sees and clicks it."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds for anything to appear: a run's process has to start, on a machine that may be busy."""

FLAGS = (
    "--no-sandbox",  # of a container's root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PICTURES_VARIABLE = "MULTITRON_PICTURES"


def chromium() -> str:
    """The browser's path; the test is skipped, saying so, where there is none."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or name one in CHROMIUM")
    return path


@dataclass(frozen=True)
class Browser:
    """A page of the UI; texts are looked for as a person does: only what is visible counts."""

    page: Page
    address: str

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.page.goto(self.address + path)

    def text(self, text: str, *, exact: bool = True) -> Locator:
        """Where a text stands."""
        return self.page.get_by_text(text, exact=exact).filter(visible=True)

    def sees(self, *texts: str) -> None:
        """Wait until each of the texts is on the page."""
        for text in texts:
            self.text(text, exact=False).first.wait_for()

    def picture(self, name: str) -> None:
        """Keep a picture of the page in the folder of MULTITRON_PICTURES, where that is set."""
        folder = os.environ.get(PICTURES_VARIABLE)
        if folder is None:
            return
        self.page.wait_for_timeout(1500)  # transitions end
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        Path(folder).mkdir(parents=True, exist_ok=True)
        image.quantize(128, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)


@contextmanager
def dagster_ui(home: Path) -> Iterator[str]:
    """`make ui` over a shop, its steps in their run's process; gives its address and ends with every process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = home / "ui.log"
    with (
        log.open("w") as lines,
        subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli.ui", "--home", str(home), "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "MULTITRON_EXECUTOR": "in_process"},
            stdout=lines,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_for(address, process, log)
            yield address
        finally:
            process.terminate()  # a shell that runs tests in the background has SIGINT ignored
            process.wait(60)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)
        else:
            return


@contextmanager
def browser(address: str, profile: Path) -> Iterator[Browser]:
    """Headless Chromium on the UI, with a new empty profile."""
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, args=FLAGS, viewport={"width": 1440, "height": 900}
        )
        context.set_default_timeout(1000 * PATIENCE)
        try:
            yield Browser(context.pages[0], address)
        finally:
            context.close()
