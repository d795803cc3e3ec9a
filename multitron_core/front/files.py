"""Files of a measured front in its model folder."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import polars as pl

from multitron_core.errors import InputError
from multitron_core.front.bootstrap import Interval
from multitron_core.front.columns import objective_names
from multitron_core.front.paper_fronts import PAPER_FRONTS, paper_front
from multitron_core.front.volume import FrontVolume
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.encoded import EncodedSessions
from multitron_core.training.config import TrainingConfig, training_config
from multitron_core.utils.atomic_file import atomic_file

VOLUME_FILE = "hypervolume.json"


def save_front(front: pl.DataFrame, volume: FrontVolume, model_dir: Path | str) -> None:
    """Save a front with its plots in the model folder; each file is replaced atomically.

    Files: `front.parquet`, `hypervolume.json`, `front.png`, `front_metrics.png`; `front_beside_paper.png` for a model
    of clicks and orders; `training.png`, the losses by epoch, if the folder has `metrics.parquet` with rows.

    Args:
        front: Table as `front_table` returns it.
        volume: Hypervolumes as `front_volume` returns them.
        model_dir: Model folder.
    """
    from multitron_core.front import plots  # matplotlib is loaded only for drawing

    model_dir = Path(model_dir)
    table = io.BytesIO()
    front.write_parquet(table)
    contents = {
        "front.parquet": table.getvalue(),
        VOLUME_FILE: json.dumps(dataclasses.asdict(volume), indent=2).encode(),
    }
    if len(objective_names(front)) == 2:
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
        with atomic_file(model_dir / name) as new:
            new.write_bytes(content)


def kept_volume(model_dir: Path | str) -> FrontVolume:
    """Read the hypervolumes that `save_front` wrote.

    Raises:
        InputError: The model folder has no readable `hypervolume.json`.
    """
    path = Path(model_dir) / VOLUME_FILE
    try:
        kept = json.loads(path.read_text())
        return FrontVolume(Interval(**kept["normalised"]), Interval(**kept["raw"]), tuple(kept["reference"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the saved hypervolumes cannot be read",
            where=path,
            found=str(error),
            hint="measure the front of the model and save it",
        ) from error


def model_and_test(
    model_dir: Path, sessions: Path, device: str = "cpu"
) -> tuple[MultiTRON, TrainingConfig, EncodedSessions]:
    """Load a model, its training config, and the test split of prepared sessions.

    Args:
        model_dir: Model folder.
        sessions: Folder of prepared sessions, encoded with the model's vocabulary.
        device: Device of the model.

    Raises:
        InputError: The model folder or the sessions cannot be read, or their vocabularies differ.
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
