"""The sizing page has the table that its command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_has_what_the_command_prints() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "sizing.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.strip() in (ROOT / "docs" / "sizing.md").read_text()
