"""The trained models of a shop: one folder per model under `<home>/models`, and a pointer to the newest."""

from __future__ import annotations

import json
from pathlib import Path

from multitron_core.errors import InputError
from multitron_core.model.description import ModelDescription
from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.home import Shop


def set_newest(shop: Shop, model_dir: Path) -> None:
    """Record `model_dir` as the newest trained model, atomically."""
    pointer = shop.models / "newest.json"
    with atomic_file(pointer) as new:
        new.write_text(json.dumps({"folder": model_dir.name}))


def newest(shop: Shop) -> Path:
    """The folder of the newest trained model.

    Raises:
        InputError: no model has been trained.
    """
    pointer = shop.models / "newest.json"
    try:
        name = json.loads(pointer.read_text())["folder"]
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"not the name of a folder in {shop.models}: {name!r}")
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
    # Incomplete folders end in ".writing"; a killed process of an earlier release may have left ".replaced", too.
    by_version = {model_version(each): each for each in folders if each.suffix not in (".writing", ".replaced")}
    if version not in by_version:
        raise InputError(
            "no model folder has this version",
            where=shop.models,
            found=version,
            hint=f"deploy one of {sorted(by_version)} (materialize `deployed_model`), or restore the missing folder",
        )
    return by_version[version]
