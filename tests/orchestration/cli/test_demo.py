from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.cli import demo
from orchestration.cli.demo import run_demo


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"split_days": 0}, "SPLIT_DAYS"), ({"preset": "fastest"}, "diginetica"), ({"format": "otto"}, "DATA")],
)
def test_a_wrong_argument_is_named_and_not_kept(arguments: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        run_demo(tmp_path / "shop", **arguments)
    assert not (tmp_path / "shop").exists()


def test_a_second_demo_in_a_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(_: object) -> None:
        run_demo(tmp_path)

    monkeypatch.setattr(demo, "prepare_instance", second)  # what the first one does once it has the home
    with pytest.raises(InputError, match=r"another demo is at work.*MULTITRON_HOME"):
        run_demo(tmp_path)
