"""The manifest of a version folder, readable without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from multitron_core.errors import InputError
from serving.interface import PYTHON_BACKEND

MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"  # Triton's default name for the onnxruntime backend


@dataclass(frozen=True)
class Manifest:
    """Identity, shape and checksums of a version; the content of `manifest.json`."""

    model_version: str  # "version" of the model folder's config.json
    vocabulary_hash: str
    items: int  # items of the vocabulary
    max_length: int  # clicks per session that the model reads
    objectives: int  # weights per preference
    block_items: int  # items scored per matrix product
    files: dict[str, str]  # file name -> SHA-256, hexadecimal
    backend: str = PYTHON_BACKEND  # Triton backend that runs it


def read_manifest(version_folder: Path) -> Manifest:
    """Read the manifest of a version folder.

    Args:
        version_folder: a version folder, written by `export_version`.

    Raises:
        InputError: the manifest is missing or damaged.
    """
    try:
        return Manifest(**json.loads((version_folder / MANIFEST_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "the version cannot be read", where=version_folder, found=str(error), hint="deploy the model again"
        ) from error
