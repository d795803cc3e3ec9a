"""What a version folder says of itself, for whoever reads it without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from multitron_core.errors import InputError
from serving.interface import PYTHON_BACKEND

MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"  # the name that Triton looks for


@dataclass(frozen=True)
class Manifest:
    """What a version is; `manifest.json` in its folder."""

    model_version: str
    vocabulary_hash: str
    items: int
    max_length: int
    objectives: int
    block_items: int
    files: dict[str, str]  # name -> SHA-256, hexadecimal
    backend: str = PYTHON_BACKEND  # Triton's backend that runs it


def read_manifest(version_folder: Path) -> Manifest:
    """What a version folder says of itself.

    Raises:
        InputError: no such version, or a damaged manifest.
    """
    try:
        return Manifest(**json.loads((version_folder / MANIFEST_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "the version cannot be read", where=version_folder, found=str(error), hint="deploy the model again"
        ) from error
