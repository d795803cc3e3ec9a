"""The raw formats. A new one is a file here with a `FORMAT`: everything else finds it by its name."""

from __future__ import annotations

import importlib
import pkgutil

from multitron_core.errors import InputError
from multitron_core.events.formats.format import Format, PreparationRules, SplitRule
from multitron_core.events.formats.table import ColumnMapping


def _formats() -> dict[str, Format]:
    """The `FORMAT` of every file beside this one that has one, by its name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    formats = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {each.name: each for each in formats}


FORMATS: dict[str, Format] = _formats()

__all__ = ["FORMATS", "ColumnMapping", "Format", "PreparationRules", "SplitRule", "get_format"]


def get_format(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: there is none.
    """
    if name not in FORMATS:
        raise InputError("unknown format", where="format", found=name, hint=f"use one of {', '.join(FORMATS)}")
    return FORMATS[name]
