"""The files of a measured front in its model folder."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.bootstrap import Interval
from multitron_core.front.monotonicity import _objectives
from multitron_core.front.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.front.volume import FrontVolume
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig, training_config

VOLUME_FILE = "hypervolume.json"


def save_front(front: pl.DataFrame, volume: FrontVolume, model_dir: Path | str) -> None:
    """Keep a front with its model: `front.parquet`, `hypervolume.json`, `front.png`, `front_metrics.png`, between
    clicks and orders `front_beside_paper.png`, and of a model that was trained here its losses by epoch,
    `training.png`.

    Each file is replaced whole.
    """
    from multitron_core.front import plots  # only who draws waits for matplotlib

    model_dir = Path(model_dir)
    table = io.BytesIO()
    front.write_parquet(table)
    contents = {
        "front.parquet": table.getvalue(),
        VOLUME_FILE: json.dumps(dataclasses.asdict(volume), indent=2).encode(),
    }
    if len(_objectives(front)) == 2:
        published = {f"paper, {name}": paper_front(name) for name in PAPER_FRONTS}
        contents |= {
            "front.png": plots.front_picture(front),
            "front_metrics.png": plots.metrics_picture(front),
            "front_beside_paper.png": plots.compare_fronts({"this model": front, **published}),
        }
    else:
        contents |= {"front.png": plots.pairs_picture(front), "front_metrics.png": plots.simplex_picture(front)}
    epochs = model_dir / "metrics.parquet"
    if epochs.exists() and len(history := pl.read_parquet(epochs)):
        contents["training.png"] = plots.training_curves(history)
    for name, content in contents.items():
        temporary = model_dir / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        os.replace(temporary, model_dir / name)


def kept_volume(model_dir: Path | str) -> FrontVolume:
    """The hypervolumes that `save_front` kept.

    Raises:
        InputError: there are none.
    """
    path = Path(model_dir) / VOLUME_FILE
    try:
        kept = json.loads(path.read_text())
        return FrontVolume(Interval(**kept["normalised"]), Interval(**kept["raw"]), tuple(kept["reference"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the front was not measured", where=path, found=str(error), hint="measure the model's front first"
        ) from error


def model_and_test(
    model_dir: Path, sessions: Path, device: str = "cpu"
) -> tuple[MultiTRON, TrainingConfig, EncodedSessions]:
    """A model, how it was trained, and test sessions that were encoded with its vocabulary.

    Raises:
        InputError: the model folder or the sessions cannot be read, or do not belong together.
    """
    model = load_model(model_dir, device)
    test = EncodedSessions.load(sessions / "test")
    if test.vocabulary_hash != ModelDescription.read(model_dir).vocabulary_hash:
        raise InputError(
            "the sessions were encoded with another vocabulary than the model's",
            where=sessions,
            found=test.vocabulary_hash,
            hint="evaluate on the sessions that were prepared for this model",
        )
    return model, training_config(model_dir), test
