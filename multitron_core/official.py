"""Import of weights that were trained with the official MultiTRON code (otto-de/MultiTRON).

    python -m multitron_core.official --checkpoint model.ckpt --out MODEL --vocabulary vocabulary.parquet

The architecture is the same; names and layout of the tensors differ: the official model is torch's
`nn.TransformerEncoder` over sessions that are padded on the left. Positions of an imported model count from the end of
the session, as there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig
from multitron_core.model.description import ModelDescription
from multitron_core.model.folder import weights_version, write_model_folder
from multitron_core.model.transformer import MultiTRON
from multitron_core.sessions.vocabulary import Vocabulary
from multitron_core.training import presets
from multitron_core.utils.command_line import command

_HINT = "import a checkpoint of the released configs: shared embeddings, no output bias, two objectives"

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_LAYER_NAMES = {
    "norm1": "norm1",
    "self_attn.in_proj_": "attention_in.",
    "self_attn.out_proj": "attention_out",
    "norm2": "norm2",
    "linear1": "feed_forward_in",
    "linear2": "feed_forward_out",
}
_NAMES = {
    "item_embedding.weight": "item_embedding.weight",
    "positional_embedding_layer.embedding.weight": "position_embedding.weight",
    "linear.weight": "linear.weight",
    "linear.bias": "linear.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_COPIES = {  # second names of the same tensor
    "output_embedding.weight": "item_embedding.weight",
    "encoder.norm.weight": "norm.weight",
    "encoder.norm.bias": "norm.bias",
}
_BUFFERS = {  # constants that the official code stores with the weights
    "future_mask_const",
    "seq_diag_const",
    "bias_ones",
    "regularization_penalty",
    "positional_embedding_layer.pos_indices_const",
}


def model_from_official_state(state_dict: Mapping[str, Tensor], *, dropout: float = 0.05) -> MultiTRON:
    """Our model with the official code's weights: the same states and scores for the same clicks and pi.

    Args:
        state_dict: `state_dict` of an official checkpoint; its sizes give the config.
        dropout: dropout of the model, for further training; evaluation does not read it.

    Returns:
        The model in evaluation mode, with positions from the end and one head.

    Raises:
        InputError: a tensor is missing, unknown or of an unexpected shape, an output layer that is not tied to the
            embedding, or an output bias.
    """
    weights, layers = _translated(state_dict)
    try:
        items, d = weights["item_embedding.weight"].shape
        config = ModelConfig(
            items=items - 1,
            dimension=d,
            layers=layers,
            heads=1,
            dropout=dropout,
            max_length=len(weights["position_embedding.weight"]),
            positions="end",
            initialisation="xavier",
            item_norm="free",
        )
        model = MultiTRON(config)
        # The official padding row has Xavier values, which no real step reads; ours is zero.
        weights["item_embedding.weight"] = weights["item_embedding.weight"].clone()
        weights["item_embedding.weight"][0] = 0.0
        model.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            "the official weights are inconsistent", where="the state_dict", found=str(error), hint=_HINT
        ) from error
    return model.eval()


def _translated(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The tensors under our names, and the number of layers."""
    weights: dict[str, Tensor] = {}
    layers = set()
    for name, tensor in state_dict.items():
        if name in _BUFFERS or name in _COPIES:
            continue
        if name in _NAMES:
            weights[_NAMES[name]] = tensor.float()
            continue
        found = _LAYER.fullmatch(name)
        ours = found and next(
            (new + found[2][len(old) :] for old, new in _LAYER_NAMES.items() if found[2].startswith(old)), None
        )
        if not found or not ours:
            raise InputError("an unknown tensor", where="the official state_dict", found=name, hint=_HINT)
        layers.add(int(found[1]))
        weights[f"layers.{found[1]}.{ours}"] = tensor.float()
    for copy, original in _COPIES.items():
        if copy in state_dict and not torch.equal(state_dict[copy], state_dict.get(original, torch.empty(0))):
            raise InputError(
                "two names of one tensor have different values",
                where="the official state_dict",
                found=f"{copy} differs from {original}",
                hint=_HINT,
            )
    return weights, len(layers)


def import_checkpoint(
    path: Path | str, out_dir: Path | str, *, vocabulary: Vocabulary | Path | str | None = None
) -> Path:
    """Write a model folder from an official checkpoint.

    Args:
        path: a Lightning checkpoint (`.ckpt`); it is read with `weights_only=True`, which executes no code in it.
        out_dir: model folder to write, like that of `training.train`; must not exist.
        vocabulary: the items in the order of the official preparation, or the path of a saved vocabulary;
            `prepare_sessions` gives it for the same raw files. Without it, the items are the numbers of the official
            code, from 1.

    Returns:
        `out_dir`.

    Raises:
        InputError: no such file, not a checkpoint, settings that this model does not have, a vocabulary of another
            length, or a folder that exists.
    """
    path, out_dir = Path(path), Path(out_dir)
    if out_dir.exists():
        raise InputError("the model folder exists", where=out_dir, hint="name a folder that does not exist")
    state, settings = _read(path)
    model = model_from_official_state(state, dropout=float(settings.get("dropout_rate", 0.05)))
    if settings.get("final_activation"):
        raise InputError("models with a final activation are not supported", where=path, hint=_HINT)
    items = model.config.items
    if vocabulary is None:
        vocabulary = Vocabulary(pl.int_range(1, items + 1, dtype=pl.Int64, eager=True))
    elif not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.load(vocabulary)
    if len(vocabulary) != items:
        raise InputError(
            "the vocabulary and the model have different lengths",
            where=path,
            found={"model": items, "vocabulary": len(vocabulary)},
            hint="use the vocabulary of the data that the checkpoint was trained on, prepared by the official rules",
        )
    training = presets.official().training.changed(
        beta=tuple(float(value) for value in settings.get("beta", (0.5, 0.5))),
        regularisation=float(settings.get("regularization_penalty", 0.2)),
        kept_negatives=int(settings.get("topk_sampling_k", 100)),
    )
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    description = ModelDescription(
        preset="official, imported",
        model=model.config,
        training=training.flat(),
        vocabulary_hash=vocabulary.hash,
        version="",
    )
    described = description.to_dict()
    del described["version"]  # the version is a hash of the other entries and the weights
    description = dataclasses.replace(description, version=weights_version(json.dumps(described), weights))
    write_model_folder(out_dir, weights, description, vocabulary)
    return out_dir


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint["state_dict"], dict(checkpoint.get("hyper_parameters", {}))
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise InputError(
            "not a checkpoint of the official code",
            where=path,
            found=str(error).strip().split("\n")[0],
            hint="name a .ckpt file that Lightning wrote; it may hold only tensors and plain values",
        ) from error


@command
def main(arguments: list[str] | None = None) -> int:
    """Import a checkpoint and print the model folder."""
    parser = argparse.ArgumentParser(prog="python -m multitron_core.official", description="Import official weights.")
    parser.add_argument("--checkpoint", type=Path, required=True, help=".ckpt of the official code")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--vocabulary", type=Path, help="vocabulary.parquet of sessions prepared by the official rules")
    given = parser.parse_args(arguments)
    print(import_checkpoint(given.checkpoint, given.out, vocabulary=given.vocabulary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
