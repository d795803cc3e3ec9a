"""Raw formats. To add a format, add a module with a `FORMAT` to this package; `get_format` finds it by its name."""

from __future__ import annotations

import importlib
import pkgutil

from multitron_core.errors import InputError
from multitron_core.events.formats.format import Format, PreparationRules, SplitRule
from multitron_core.events.formats.table import ColumnMapping


def _formats() -> dict[str, Format]:
    """Collect the `FORMAT` of every module of this package that has one, by the format's name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    formats = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {each.name: each for each in formats}


FORMATS: dict[str, Format] = _formats()
"""Every format by its name."""

__all__ = ["FORMATS", "ColumnMapping", "Format", "PreparationRules", "SplitRule", "get_format"]


def get_format(name: str) -> Format:
    """Return the format with the given name.

    Raises:
        InputError: No format has this name.
    """
    if name not in FORMATS:
        raise InputError("unknown format", where="format", found=name, hint=f"use one of {', '.join(FORMATS)}")
    return FORMATS[name]
