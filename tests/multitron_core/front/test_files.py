from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.front.evaluation import front_table, front_volume
from multitron_core.front.files import VOLUME_FILE, kept_volume, save_front
from multitron_core.front.measurement import measure_front
from multitron_core.model.transformer import MultiTRON
from tests.multitron_core.front.conftest import SMALL, random_sessions


def test_save_front_writes_table_volume_and_plots(model: MultiTRON, tmp_path: Path) -> None:
    measured = measure_front(model, random_sessions(), [0.0, 0.5, 1.0], config=SMALL)
    front, volume = front_table(measured), front_volume(measured, resamples=5)
    save_front(front, volume, tmp_path)
    plots = ["front.png", "front_beside_paper.png", "front_metrics.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*plots, "front.parquet", VOLUME_FILE])
    assert pl.read_parquet(tmp_path / "front.parquet").equals(front)
    assert kept_volume(tmp_path) == volume


def test_kept_volume_refuses_a_missing_or_broken_file(tmp_path: Path) -> None:
    for content in (None, "{}", "not JSON"):
        if content is not None:
            (tmp_path / VOLUME_FILE).write_text(content)
        with pytest.raises(InputError, match="saved hypervolumes cannot be read"):
            kept_volume(tmp_path)
