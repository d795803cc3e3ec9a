"""The raw formats. A new one is a file here and an entry in `FORMATS`."""

from __future__ import annotations

from multitron_core.errors import InputError
from multitron_core.formats import diginetica, otto, table, yoochoose
from multitron_core.formats.format import Format, PreparationRules, SplitRule
from multitron_core.formats.table import ColumnMapping

FORMATS: dict[str, Format] = {
    each.name: each for each in (diginetica.FORMAT, yoochoose.FORMAT, otto.FORMAT, table.FORMAT)
}

__all__ = ["FORMATS", "ColumnMapping", "Format", "PreparationRules", "SplitRule", "get_format"]


def get_format(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: there is none.
    """
    if name not in FORMATS:
        raise InputError("unknown format", where="format", found=name, mend=f"use one of {', '.join(FORMATS)}")
    return FORMATS[name]
