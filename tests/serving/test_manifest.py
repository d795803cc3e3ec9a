"""The manifest of a version folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multitron_core.errors import InputError
from serving.interface import PYTHON_BACKEND
from serving.manifest import read_manifest

WRITTEN = {
    "model_version": "first",
    "vocabulary_hash": "abc",
    "items": 7,
    "max_length": 5,
    "objectives": 2,
    "block_items": 64,
    "files": {},
}


def test_read_manifest_without_a_backend(tmp_path: Path) -> None:
    """The first manifests had no backend: all versions were for the python backend."""
    (tmp_path / "manifest.json").write_text(json.dumps(WRITTEN))
    assert read_manifest(tmp_path).backend == PYTHON_BACKEND


@pytest.mark.parametrize("content", [None, "{", "{}"], ids=["missing", "cut", "empty"])
def test_read_manifest_refuses_a_damaged_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"cannot be read.*deploy the model again"):
        read_manifest(tmp_path)
