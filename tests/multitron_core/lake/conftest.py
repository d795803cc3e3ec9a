"""Shared fixture of the tests of the Delta tables."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from multitron_core.lake.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with empty tables and integer item ids."""
    lake = Lake(tmp_path / "lake")
    lake.create(pl.Int64)
    return lake
