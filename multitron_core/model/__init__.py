"""The MultiTRON transformer, its configuration and its folder on disk."""

from multitron_core.model.config import ModelConfig
from multitron_core.model.folder import load_model
from multitron_core.model.transformer import MultiTRON

__all__ = [
    "ModelConfig",
    "MultiTRON",
    "load_model",
]
