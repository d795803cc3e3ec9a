"""Training: presets, the trainer and its checkpoints, from prepared sessions to a model folder."""

from multitron_core.training.config import TrainingConfig, training_config
from multitron_core.training.presets import PRESETS, Preset, named
from multitron_core.training.trainer import train

__all__ = [
    "PRESETS",
    "Preset",
    "TrainingConfig",
    "named",
    "train",
    "training_config",
]
