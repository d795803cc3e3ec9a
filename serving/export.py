"""From a model folder to a version folder: a self-contained program that needs nothing of this project.

A version folder holds what its backend needs.

For the python backend:
- `exact.pt2` and `screened.pt2`: the scoring program by `torch.export`, in fp32 throughout and with a screen in int8
  (bfloat16 for a GPU, and for tables that int8 rounds too coarsely); their lists are the same, and the server uses the
  faster one. `torch.export.save` writes a zip of JSON; it pickles only example inputs, opaque constants and tensors of
  unusual kinds. We drop the example inputs, and a program takes its weights as an argument, so an archive holds no
  tensor at all; `archive_is_plain` checks that.
- `screen.safetensors`: what `program.Screen` makes of the weights;
- `model.py` and `version_program.py`: what Triton runs.
For the onnxruntime backend, which a stock container has without torch:
- `model.onnx`: the same program as a graph, see `onnx_graph`.
For both:
- `weights.safetensors`: the training's numbers;
- `manifest.json`: what the version is, and the SHA-256 of the other files.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim

from multitron_core.errors import InputError
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import load_model
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.utils.atomic_folder import atomic_plain_folder
from serving.interface import ONNX_BACKEND, PYTHON_BACKEND
from serving.manifest import MANIFEST_FILE, ONNX_FILE, Manifest, read_manifest
from serving.scoring_program import BLOCK_ITEMS, ScoringProgram, screen_for
from serving.version_program import check_files, file_sha256

SERVER_FILES = {"model.py": "triton_model.py", "version_program.py": "version_program.py"}
CARRIED_FILES = ("front.parquet", "metrics.parquet")  # kept with the version, so that a later one can be compared


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
        return torch.func.functional_call(self._held[0], weights, (items, lengths, pi, k, excluded, allowed))


def export_program(program: ScoringProgram, path: Path) -> None:
    """Write a scoring program with dynamic sessions, steps, k and exclusions.

    Args:
        program: in evaluation mode, on the CPU.
        path: the `.pt2` file to write.
    """
    config = program.model.config
    # Sorted by name wherever the program is called: torch.export takes a dict's values in their order.
    weights = {name: weight.detach() for name, weight in sorted(program.state_dict().items())}
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
            "the exported program is not plain", where=path, hint="use the torch version of the project's lock file"
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


def export_version(
    model_dir: Path | str,
    target: Path,
    *,
    backend: str = PYTHON_BACKEND,
    on_gpu: bool = False,
    block_items: int = BLOCK_ITEMS,
) -> Manifest:
    """Write a version folder; it appears under its name only when it is whole.

    Args:
        model_dir: a model folder, written by training.
        target: the version folder to make; must not exist.
        backend: Triton's backend that will run it, "python" or "onnxruntime".
        on_gpu: whether it will run on a GPU; it runs on both, but not as fast.
        block_items: items scored at a time.

    Raises:
        InputError: the model folder is not whole, its vocabulary is not the one it was trained with, or an unknown
            backend.
    """
    if backend not in (PYTHON_BACKEND, ONNX_BACKEND):
        raise InputError("unknown backend", found=backend, hint=f"use {PYTHON_BACKEND} or {ONNX_BACKEND}")
    model_dir = Path(model_dir)
    model = load_model(model_dir)
    model_version, vocabulary_hash = model_identity(model_dir)
    vocabulary = Vocabulary.load(model_dir / "vocabulary.parquet")
    if vocabulary.hash != vocabulary_hash or len(vocabulary) != model.config.items:
        raise InputError(
            "the model and its vocabulary do not belong together",
            where=model_dir,
            found={"hash": vocabulary.hash, "items": len(vocabulary)},
            hint=f"expected {vocabulary_hash} and {model.config.items} items; train the model again",
        )
    with atomic_plain_folder(target) as staging:
        exact = ScoringProgram(model, block_items=block_items).eval()
        save_file(exact.state_dict(), staging / "weights.safetensors")
        if backend == ONNX_BACKEND:
            from serving.onnx_graph import write_onnx  # needs a package that not everybody has

            write_onnx(model.config, staging / "weights.safetensors", staging / ONNX_FILE, block_items=block_items)
        else:
            _write_programs(exact, staging, on_gpu=on_gpu)
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
            files={path.name: file_sha256(str(path)) for path in sorted(staging.iterdir())},
            backend=backend,
        )
        (staging / MANIFEST_FILE).write_text(json.dumps(manifest.__dict__, indent=2))
    return manifest


def _write_programs(exact: ScoringProgram, folder: Path, *, on_gpu: bool) -> None:
    """What the python backend needs beside the weights."""
    screen = screen_for(exact.model.item_embedding.weight.detach()[1:], on_gpu=on_gpu)
    screened = ScoringProgram(exact.model, screen=screen, block_items=exact.block_items).eval()
    export_program(exact, folder / "exact.pt2")
    export_program(screened, folder / "screened.pt2")
    tensors = {"screen_table": screen.table, "screen_scale": screen.scale, "screen_norms": screen.norms}
    save_file(tensors, folder / "screen.safetensors")
    for name, source in SERVER_FILES.items():
        shutil.copyfile(Path(__file__).with_name(source), folder / name)


def verify_checksums(version_folder: Path) -> Manifest:
    """Compare every file of a version with its checksum.

    Raises:
        InputError: a file is missing or differs.
    """
    try:
        check_files(str(version_folder))
    except (OSError, ValueError) as error:
        raise InputError(
            "the version is damaged", where=version_folder, found=str(error), hint="deploy the model again"
        ) from error
    return read_manifest(version_folder)


def model_identity(model_dir: Path) -> tuple[str, str]:
    """The version of a model folder and the hash of its vocabulary.

    Raises:
        InputError: not a model folder.
    """
    description = ModelDescription.read(model_dir)
    return description.version, description.vocabulary_hash
