"""From a model folder to a version folder: a self-contained program that needs torch but not this project.

A version folder holds
- `program.pt2`: the scoring program by `torch.export`. `torch.export.save` writes a zip of JSON; it pickles only
  example inputs, opaque constants and tensors of unusual kinds. We drop the example inputs, and the program takes its
  weights as an argument, so the archive holds no tensor at all; `archive_is_plain` checks that before anybody loads it.
- `weights.safetensors`: byte for byte the training's file; the server maps it into memory, so that instances share it;
- `model.py`: what Triton's python backend runs;
- `manifest.json`: what the version is, and the SHA-256 of the other files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from multitron_core.errors import InputError
from multitron_core.model import MultiTRON, load_model
from multitron_core.vocabulary import Vocabulary
from serving.program import BLOCK_ITEMS, ScoringProgram

MODEL_FILE = Path(__file__).with_name("triton_model.py")
CARRIED_FILES = ("front.parquet", "metrics.parquet")  # kept with the version, so that a later one can be compared


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


class _WithWeights(nn.Module):
    """A scoring program whose weights are an argument; the program is held out of sight of `torch.export`."""

    def __init__(self, program: ScoringProgram) -> None:
        super().__init__()
        self._held = (program,)

    def forward(
        self,
        items: Tensor,
        lengths: Tensor,
        pi: Tensor,
        k: int,
        excluded: Tensor,
        allowed: Tensor,
        weights: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(self._held[0], named, (items, lengths, pi, k, excluded, allowed))


def export_program(model: MultiTRON, path: Path, *, block_items: int = BLOCK_ITEMS) -> None:
    """Write the scoring program of `model` with dynamic sessions, steps, k and exclusions.

    Args:
        model: in evaluation mode, on the CPU.
        path: the `.pt2` file to write.
        block_items: items scored at a time.
    """
    program = ScoringProgram(model, block_items=block_items).eval()
    config = model.config
    # Sorted by name wherever the program is called: torch.export takes a dict's values in their order.
    weights = {name: weight.detach() for name, weight in sorted(model.state_dict().items())}
    sessions, steps, width = Dim("sessions", min=1), Dim("steps", min=1, max=config.max_length), Dim("width", min=1)
    longest = min(2, config.max_length)
    arguments = (
        torch.ones(3, longest, dtype=torch.int64),
        torch.full((3,), longest, dtype=torch.int64),
        torch.full((3, len(config.objectives)), 0.5),
        2,
        torch.zeros(3, 2, dtype=torch.int64),
        torch.zeros(config.items),
        weights,
    )
    shapes = (
        {0: sessions, 1: steps} if config.max_length > 1 else {0: sessions},
        {0: sessions},
        {0: sessions},
        Dim.DYNAMIC,
        {0: sessions, 1: width},
        None,
        dict.fromkeys(weights),
    )
    with torch.no_grad():
        exported = torch.export.export(_WithWeights(program), arguments, dynamic_shapes=shapes)
    exported.example_inputs = None  # they would be pickled
    torch.export.save(exported, path)
    if not archive_is_plain(path):
        raise InputError(
            "the exported program is not plain", where=path, mend="use the torch version of the project's lock file"
        )


def archive_is_plain(path: Path) -> bool:
    """Whether a `.pt2` archive holds neither a tensor nor a pickle, so that loading it runs no code of its own."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            inner = entry.filename.split("/", 1)[-1]
            if inner.endswith("_config.json"):
                if json.loads(archive.read(entry)).get("config"):
                    return False
            elif inner.startswith("data/") and entry.file_size:
                return False
    return True


def export_version(model_dir: Path | str, target: Path, *, block_items: int = BLOCK_ITEMS) -> Manifest:
    """Write a version folder; it appears under its name only when it is whole.

    Args:
        model_dir: a model folder, written by training.
        target: the version folder to make; must not exist.
        block_items: items scored at a time.

    Raises:
        InputError: the model folder is not whole, or its vocabulary is not the one it was trained with.
    """
    model_dir = Path(model_dir)
    model = load_model(model_dir)
    model_version, vocabulary_hash = model_identity(model_dir)
    vocabulary = Vocabulary.load(model_dir / "vocabulary.parquet")
    if vocabulary.hash != vocabulary_hash or len(vocabulary) != model.config.items:
        raise InputError(
            "the model and its vocabulary do not belong together",
            where=model_dir,
            found={"hash": vocabulary.hash, "items": len(vocabulary)},
            mend=f"expected {vocabulary_hash} and {model.config.items} items; train the model again",
        )
    staging = target.with_name(f".staging-{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        export_program(model, staging / "program.pt2", block_items=block_items)
        shutil.copyfile(model_dir / "weights.safetensors", staging / "weights.safetensors")
        shutil.copyfile(MODEL_FILE, staging / "model.py")
        for name in CARRIED_FILES:
            if (model_dir / name).exists():
                shutil.copyfile(model_dir / name, staging / name)
        manifest = Manifest(
            model_version=model_version,
            vocabulary_hash=vocabulary.hash,
            items=model.config.items,
            max_length=model.config.max_length,
            objectives=len(model.config.objectives),
            block_items=block_items,
            files={path.name: file_sha256(path) for path in sorted(staging.iterdir())},
        )
        (staging / "manifest.json").write_text(json.dumps(manifest.__dict__, indent=2))
        os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def read_manifest(version_folder: Path) -> Manifest:
    """What a version folder says of itself.

    Raises:
        InputError: no such version, or a damaged manifest.
    """
    try:
        return Manifest(**json.loads((version_folder / "manifest.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "the version cannot be read", where=version_folder, found=str(error), mend="deploy the model again"
        ) from error


def verify_checksums(version_folder: Path) -> Manifest:
    """Compare every file of a version with its checksum.

    Raises:
        InputError: a file is missing or differs.
    """
    manifest = read_manifest(version_folder)
    for name, expected in manifest.files.items():
        path = version_folder / name
        found = file_sha256(path) if path.exists() else "no such file"
        if found != expected:
            raise InputError(
                "a file of the version differs from its checksum",
                where=path,
                found=found,
                mend="deploy the model again",
            )
    return manifest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_identity(model_dir: Path) -> tuple[str, str]:
    """The version of a model folder and the hash of its vocabulary.

    Raises:
        InputError: the folder's `config.json` does not say them.
    """
    try:
        described = json.loads((model_dir / "config.json").read_text())
        return str(described["version"]), str(described["vocabulary_hash"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            "the model folder does not say its version and vocabulary",
            where=model_dir / "config.json",
            found=str(error),
            mend="train the model again",
        ) from error
