"""The description of a model folder: its `config.json`. Free of torch, for programs that only need the version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitron_core.errors import InputError
from multitron_core.model.config import ModelConfig

FILE_NAME = "config.json"


@dataclass(frozen=True)
class ModelDescription:
    """What `config.json` of a model folder says.

    Args:
        model: shape of the model.
        training: settings that it was trained with, flat or in sections (`training.TrainingConfig` reads both).
        vocabulary_hash: hash of the vocabulary that its item indices belong to.
        version: 12 hexadecimal digits, a hash of fingerprint and weights.
        preset: name of the preset that the model was trained with, None if unknown.
        fingerprint: hash of the settings and data it was trained on, None for an imported model.
        extra: all other entries, for example `epoch` and `rates` (share of training targets with each objective's
            event).
    """

    model: ModelConfig
    training: Mapping[str, Any]
    vocabulary_hash: str
    version: str
    preset: str | None = None
    fingerprint: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str) -> ModelDescription:
        """The description of a model folder.

        Raises:
            InputError: `config.json` is missing, is not JSON, or lacks an entry.
        """
        path = Path(folder) / FILE_NAME
        try:
            entries = json.loads(path.read_text())
            model = ModelConfig(**entries.pop("model"))
            known = {name: entries.pop(name) for name in ("training", "vocabulary_hash", "version")}
            known |= {name: entries.pop(name, None) for name in ("preset", "fingerprint")}
            return cls(model=model, **known, extra=entries)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "not a model folder",
                where=path,
                found=f"no entry {error}" if isinstance(error, KeyError) else str(error),
                hint="name a folder that training wrote",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The entries of `config.json`, in the order in which they are written."""
        entries = {
            "preset": self.preset,
            "model": self.model.model_dump(),
            "training": dict(self.training),
            "vocabulary_hash": self.vocabulary_hash,
            "fingerprint": self.fingerprint,
            "version": self.version,
            **self.extra,
        }
        return {name: value for name, value in entries.items() if value is not None}
