"""Export a model folder to a Triton version folder, which runs without this project.

Files of a version for the python backend:

- `exact.pt2` and `screened.pt2`: the scoring program, exported by `torch.export`. The first computes in fp32
  throughout. The second screens the catalogue in int8, or in bfloat16 for a GPU and for tables that int8 rounds too
  coarsely. Both give the same lists; the server uses the faster one. `torch.export.save` writes a zip of JSON. It
  pickles only example inputs, opaque constants and tensors of unusual kinds. The export drops the example inputs and
  passes the weights as an argument, so an archive holds no tensor; `archive_is_plain` checks this.
- `screen.safetensors`: the low-precision item table, see `scoring_program.Screen`.
- `model.py` and `version_program.py`: the code that Triton runs.

Files for the onnxruntime backend, which a stock container runs without torch:

- `model.onnx`: the same program as a graph, see `onnx_graph`.

Files for both:

- `weights.safetensors`: the trained weights, float32.
- `manifest.json`: identity and shape of the version, and the SHA-256 of its other files.
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
"""Files of a version folder that are copies of files of this package."""
CARRIED_FILES = ("front.parquet", "metrics.parquet")
"""Files of the model folder that a version keeps, so that quality gates can compare a later version with it."""


class _WithWeights(nn.Module):
    """A scoring program that takes its weights as an argument.

    The tuple hides the program's parameters from `torch.export`, which would store them in the archive.
    """

    def __init__(self, program: ScoringProgram) -> None:
        super().__init__()
        self._hidden_program = (program,)

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
        return torch.func.functional_call(self._hidden_program[0], weights, (items, lengths, pi, k, excluded, allowed))


def export_program(program: ScoringProgram, path: Path) -> None:
    """Write a scoring program with dynamic numbers of sessions, steps, items per list and exclusions.

    Args:
        program: in evaluation mode, on the CPU.
        path: the `.pt2` file to write.

    Raises:
        InputError: the archive holds a tensor or a pickle.
    """
    config = program.model.config
    # Sorted by name, here and wherever the program is called: torch.export takes the values of a dict in order.
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
    exported.example_inputs = None  # torch.export.save would pickle them
    torch.export.save(exported, path)
    if not archive_is_plain(path):
        raise InputError(
            "the exported program holds a tensor or a pickle",
            where=path,
            hint="use the torch version of the project's lock file",
        )


def archive_is_plain(path: Path) -> bool:
    """Whether a `.pt2` archive holds neither a tensor nor a pickle, so that loading it cannot run code from it."""
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
    """Write a version folder, which appears under its name only when it is complete.

    Args:
        model_dir: a model folder, written by training.
        target: the version folder to create; must not exist.
        backend: Triton backend that will run it, "python" or "onnxruntime".
        on_gpu: whether the screen is made for a GPU (bfloat16) or for a CPU (int8). A version runs on both; on the
            other device it may be slower.
        block_items: items scored per matrix product; bounds memory.

    Returns:
        The manifest of the version.

    Raises:
        InputError: the model folder is incomplete, its vocabulary is not the one it was trained with, or the backend
            is unknown.
    """
    if backend not in (PYTHON_BACKEND, ONNX_BACKEND):
        raise InputError("unknown backend", found=backend, hint=f"use {PYTHON_BACKEND} or {ONNX_BACKEND}")
    model_dir = Path(model_dir)
    model = load_model(model_dir)
    model_version, vocabulary_hash = model_identity(model_dir)
    vocabulary = Vocabulary.load(model_dir / "vocabulary.parquet")
    if vocabulary.hash != vocabulary_hash or len(vocabulary) != model.config.items:
        raise InputError(
            "the model was trained with another vocabulary",
            where=model_dir,
            found={"hash": vocabulary.hash, "items": len(vocabulary)},
            hint=f"expected {vocabulary_hash} and {model.config.items} items; train the model again",
        )
    with atomic_plain_folder(target) as staging:
        exact = ScoringProgram(model, block_items=block_items).eval()
        save_file(exact.state_dict(), staging / "weights.safetensors")
        if backend == ONNX_BACKEND:
            from serving.onnx_graph import write_onnx  # needs the optional package onnx

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
    """Write the files that only the python backend needs: programs, screen and server code."""
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

    Args:
        version_folder: a version folder, written by `export_version`.

    Returns:
        The manifest of the version.

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

    Args:
        model_dir: a model folder, written by training.

    Raises:
        InputError: not a model folder.
    """
    description = ModelDescription.read(model_dir)
    return description.version, description.vocabulary_hash
