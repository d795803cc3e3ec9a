"""Settings from a TOML file, overridden by the environment; every wrong setting is named, with its nearest right name.

`MULTITRON_<SECTION>__<NAME>` overrides `<name>` of `[<section>]`, for example `MULTITRON_SCORING__K=30`; two more
underscores lead one table deeper. The model is plain pydantic. Its companion pydantic-settings was tried and does less:
it ignores a variable with a misspelt section, leaves the numbers of free tables strings, does not name the variable of
a list that it cannot read, and reads the environment whenever the model is built.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from multitron_core.errors import InputError
from multitron_core.utils.redaction import redacted

PREFIX, DELIMITER = "MULTITRON_", "__"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Override:
    """A setting from the environment.

    Args:
        variable: its name.
        path: section, name, and for free tables the keys below, in lower case.
        value: as TOML or, where a single setting of a section is meant, as text that pydantic converts.
    """

    variable: str
    path: tuple[str, ...]
    value: Any


def overrides() -> list[Override]:
    """The settings that the environment overrides, sorted by path."""
    found = []
    for variable, text in os.environ.items():
        if variable.startswith(PREFIX) and DELIMITER in variable:
            path = tuple(variable.removeprefix(PREFIX).lower().split(DELIMITER))
            found.append(Override(variable, path, _value(text, typed=len(path) == 2)))
    return sorted(found, key=lambda override: override.path)


def _value(text: str, *, typed: bool) -> Any:
    """Lists, tables and quoted strings as in TOML; a bare word is a string, and so is all else that has a type."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    return text if len(parsed) > 1 or (typed and not isinstance(value, list | dict | str)) else value


def checked_settings(model: type[M], values: dict[str, Any], file: object, overrides: Iterable[Override] = ()) -> M:
    """Settings from the values of a file and from the environment.

    Args:
        model: the settings, one nested model per section.
        values: of the file.
        file: its name, for errors.
        overrides: what goes before the file.

    Raises:
        InputError: all wrong settings, each with its place, its value and, if it is unknown, the nearest known name.
    """
    overrides = list(overrides)
    for override in overrides:
        values = _with(values, override.path, override.value)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, dict(each), file, overrides) for each in error.errors(include_url=False)]
    if len(problems) == 1:
        raise problems[0]
    raise InputError(f"{len(problems)} settings are wrong\n" + "\n".join(f"- {problem}" for problem in problems))


def _with(values: Any, path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of nested tables with one value replaced."""
    table = values if isinstance(values, dict) else {}
    name, *below = path
    return {**table, name: _with(table.get(name), tuple(below), value) if below else value}


def _problem(model: type[BaseModel], error: dict[str, Any], file: object, overrides: list[Override]) -> InputError:
    """One error of pydantic, as an error of ours."""
    location: tuple[int | str, ...] = error["loc"]
    where = _where(location, file, overrides)
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # of one of our own checks: it knows more than the message
        place = where if cause.where in (None, ".".join(map(str, location))) else f"{where}, {cause.where}"
        return InputError(cause.what, where=place, found=cause.found, hint=cause.hint or "correct this setting")
    name = _name(location)
    if error["type"] == "extra_forbidden":  # its value may be a secret in the wrong place
        nearest = _nearest(model, location)
        advice = f"; did you mean {nearest}?" if nearest else ""
        return InputError(f"unknown setting {name}{advice}", where=where, hint="correct its name or remove it")
    if error["type"] == "missing":  # what pydantic found is the whole section
        return InputError(f"{name} is missing", where=where, hint="add this setting")
    found = error["input"]
    shown = found if isinstance(found, bool | int | float) else redacted(str(found))
    return InputError(
        f"{name}: {error['msg'].removeprefix('Value error, ')}", where=where, found=shown, hint="correct this setting"
    )


def _where(location: tuple[int | str, ...], file: object, overrides: list[Override]) -> str:
    """The variable that set a value; else the file and the setting, with the variables that set a part of it."""
    above = [each.variable for each in overrides if each.path == location[: len(each.path)]]
    below = [each.variable for each in overrides if each.path[: len(location)] == location]
    dotted = ".".join(map(str, location))
    return ", ".join(filter(None, [*above, dotted] if above else [str(file), dotted, *below]))


def _name(location: tuple[int | str, ...]) -> str:
    """A setting as it stands in the file: `[scoring] k`."""
    section, *names = map(str, location)
    return " ".join([f"[{section}]", ".".join(names)]).strip()


def _nearest(model: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    """The known name most like an unknown one in its section; None if no name is like it."""
    *above, name = map(str, location)
    section: Any = model
    for each in above:
        section = section.model_fields[each].annotation
    matches = difflib.get_close_matches(name, section.model_fields, n=1)
    return (matches[0] if above else f"[{matches[0]}]") if matches else None
