"""The Dagster UI of a shop, and headless Chromium to use it."""

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
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Maximum seconds until anything appears: a run must start a process, on a machine that may be busy."""

FLAGS = (
    "--no-sandbox",  # root in a container has no sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PICTURES_VARIABLE = "MULTITRON_PICTURES"
"""Environment variable: the folder for screenshots; none are taken without it."""


def chromium() -> str:
    """The path of the browser; without playwright or a browser the test is skipped."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install 'multitron-batch[dev]'")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or name one in CHROMIUM")
    return path


@dataclass(frozen=True)
class Browser:
    """A page of the UI. Texts are searched among the visible ones only."""

    page: Page
    address: str

    def open(self, path: str) -> None:
        """Open a page of the UI by its path."""
        self.page.goto(self.address + path)

    def text(self, text: str, *, exact: bool = True) -> Locator:
        """The elements that show a text."""
        return self.page.get_by_text(text, exact=exact).filter(visible=True)

    def wait_for(self, *texts: str) -> None:
        """Wait until the page shows each of the texts."""
        for text in texts:
            self.text(text, exact=False).first.wait_for()

    def picture(self, name: str) -> None:
        """Save a screenshot in the folder of MULTITRON_PICTURES, if it is set."""
        from PIL import Image

        folder = os.environ.get(PICTURES_VARIABLE)
        if folder is None:
            return
        self.page.wait_for_timeout(1500)  # transitions end
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        Path(folder).mkdir(parents=True, exist_ok=True)
        image.quantize(128, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)


@dataclass(frozen=True)
class RunningUI:
    """A running `multitron ui`: its address, and its process id."""

    address: str
    process_id: int


@contextmanager
def dagster_ui(home: Path) -> Iterator[RunningUI]:
    """`multitron ui` of a shop; steps run in the process of their run. All its processes end with the block."""
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
            yield RunningUI(address, process.pid)
        finally:
            process.terminate()  # SIGINT is ignored in tests that a shell runs in the background
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
    """Headless Chromium with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, args=FLAGS, viewport={"width": 1440, "height": 900}
        )
        context.set_default_timeout(1000 * PATIENCE)
        try:
            yield Browser(context.pages[0], address)
        finally:
            context.close()
