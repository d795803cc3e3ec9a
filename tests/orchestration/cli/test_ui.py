from __future__ import annotations

import socket
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.cli.ui import run_ui
from orchestration.shop.home import Shop
from orchestration.shop.settings import demo_settings


def test_run_ui_refuses_a_port_in_use_before_any_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}.*PORT="):
            run_ui(Shop(home=tmp_path, settings=demo_settings()), port=port)
    assert not list(tmp_path.iterdir())
