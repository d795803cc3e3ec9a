from __future__ import annotations

from pathlib import Path

import pytest

from multitron_core.errors import InputError
from orchestration.demo import run_demo


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"split_days": 0}, "SPLIT_DAYS"), ({"preset": "fastest"}, "diginetica"), ({"format": "otto"}, "DATA")],
)
def test_a_wrong_argument_is_named_and_not_kept(arguments: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        run_demo(tmp_path / "shop", **arguments)
    assert not (tmp_path / "shop").exists()
