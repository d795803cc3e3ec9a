from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multitron_core.errors import InputError
from multitron_core.utils.file_lock import file_lock
from orchestration.cli.demo import run_demo

SIZE = (20, 10)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"split_days": 0}, "SPLIT_DAYS"), ({"preset": "fastest"}, "diginetica"), ({"format": "otto"}, "DATA")],
)
def test_run_demo_writes_no_wrong_setting(arguments: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        run_demo(tmp_path / "shop", size=SIZE, **arguments)
    assert not (tmp_path / "shop").exists()


def test_run_demo_refuses_a_home_in_use(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / ".demo.lock", refusal=InputError("locked")),  # as another demo does
        pytest.raises(InputError, match=r"another demo is running.*MULTITRON_HOME"),
    ):
        run_demo(tmp_path, size=SIZE)
