"""The trained models of a shop: a folder each under `<home>/models`, and which of them is the newest."""

from __future__ import annotations

import json
import os
from pathlib import Path

from multitron_core.errors import InputError
from multitron_core.model.description import ModelDescription
from orchestration.shop.home import Shop


def set_newest(shop: Shop, model_dir: Path) -> None:
    """Remember `model_dir` as the newest trained model, atomically."""
    pointer = shop.models / "newest.json"
    beside = pointer.with_suffix(".new")
    beside.write_text(json.dumps({"folder": model_dir.name}))
    os.replace(beside, pointer)


def newest(shop: Shop) -> Path:
    """The folder of the newest trained model.

    Raises:
        InputError: nothing has been trained.
    """
    pointer = shop.models / "newest.json"
    try:
        name = json.loads(pointer.read_text())["folder"]
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"not the name of a folder below {shop.models}: {name!r}")
        return shop.models / name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "no trained model", where=pointer, found=str(error), hint="materialize the asset `model`"
        ) from error


def model_version(model_dir: Path) -> str:
    """The version that training gave a model folder.

    Raises:
        InputError: not a model folder.
    """
    return ModelDescription.read(model_dir).version


def folder_of(shop: Shop, version: str) -> Path:
    """The model folder of a version.

    Raises:
        InputError: no folder has that version.
    """
    folders = [config.parent for config in sorted(shop.models.glob("*/config.json"))]
    # Beside its folder a training keeps what it is writing or replacing, which may be half of a model.
    known = {model_version(each): each for each in folders if each.suffix not in (".writing", ".replaced")}
    if version not in known:
        raise InputError(
            "the live model's folder is missing",
            where=shop.models,
            found=version,
            hint=f"deploy one of {sorted(known)} (materialize `deployed_model`), or bring that folder back",
        )
    return known[version]
