"""Settings as dataclasses: from and to JSON, and checks of their ranges."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from multitron_core.errors import InputError

Config = TypeVar("Config")


def to_json(config: Any) -> str:
    """A config as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """A config of `kind` from what JSON gives back: lists become tuples.

    Raises:
        InputError: a setting that `kind` does not have, or a value that is of another kind than its setting.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            "unknown settings", where=kind.__name__, found=unknown, hint=f"the settings are {sorted(known)}"
        )
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    kinds = get_type_hints(kind)
    for name, value in given.items():
        if get_origin(kinds[name]) is not Literal:  # the config itself refuses those, and says which there are
            _of_kind(f"{kind.__name__}.{name}", kinds[name], value)
    return kind(**given)


def _of_kind(where: str, kind: Any, value: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        said = "; ".join(problem["msg"] for problem in error.errors())
        raise InputError("a setting has a value of the wrong kind", where=where, found=value, hint=said) from error


def _refuse(config: Any, name: str, hint: str) -> None:
    where = f"{type(config).__name__}.{name}"
    raise InputError("a setting is out of range", where=where, found=getattr(config, name), hint=hint)


def _at_least(config: Any, low: float, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= low:
            _refuse(config, name, f"use {low} or more")


def _within(config: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        if not low <= getattr(config, name) <= high:
            _refuse(config, name, f"use a value between {low} and {high}")


def _one_of(config: Any, name: str, values: Iterable[str]) -> None:
    if getattr(config, name) not in tuple(values):  # a value from a file may be a list
        _refuse(config, name, f"use one of {', '.join(values)}")
