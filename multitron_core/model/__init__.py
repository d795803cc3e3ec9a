"""The MultiTRON transformer, its configuration, and its folder on disk.

Names that need torch are imported on first use, so that a program that only reads a description starts quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from multitron_core.model.config import ModelConfig
from multitron_core.model.description import ModelDescription

if TYPE_CHECKING:
    from multitron_core.model.folder import load_model
    from multitron_core.model.transformer import MultiTRON

__all__ = [
    "ModelConfig",
    "ModelDescription",
    "MultiTRON",
    "load_model",
]

_NEED_TORCH = {"MultiTRON": "transformer", "load_model": "folder"}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
