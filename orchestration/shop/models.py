"""The trained models of a shop: a folder each under `<home>/models`, and which of them is the newest."""

from __future__ import annotations

import json
from pathlib import Path

from multitron_core.errors import InputError
from multitron_core.utils.atomic_file import atomic_file
from orchestration.shop.home import Shop


def set_newest(shop: Shop, model_dir: Path) -> None:
    """Remember `model_dir` as the newest trained model, atomically."""
    pointer = shop.models / "newest.json"
    with atomic_file(pointer) as new:
        new.write_text(json.dumps({"folder": model_dir.name}))


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
    """The version that training gave a model folder."""
    return str(json.loads((model_dir / "config.json").read_text())["version"])


def folder_of(shop: Shop, version: str) -> Path:
    """The model folder of a version.

    Raises:
        InputError: no folder has that version.
    """
    folders = [config.parent for config in sorted(shop.models.glob("*/config.json"))]
    # Incomplete folders end in ".writing"; a killed process of an earlier release may have left ".replaced", too.
    known = {model_version(each): each for each in folders if each.suffix not in (".writing", ".replaced")}
    if version not in known:
        raise InputError(
            "the live model's folder is missing",
            where=shop.models,
            found=version,
            hint=f"deploy one of {sorted(known)} (materialize `deployed_model`), or bring that folder back",
        )
    return known[version]
