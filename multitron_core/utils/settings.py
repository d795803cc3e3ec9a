"""Settings as frozen pydantic models, and pydantic's errors as one InputError that lists all of them."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from multitron_core.errors import InputError
from multitron_core.utils.redaction import redacted

Positive = Annotated[int, Field(ge=1)]
"""An integer of at least 1."""

Count = Annotated[int, Field(ge=0)]
"""An integer of at least 0."""


def _as_given(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    validate(value)
    return value


Number = Annotated[float, WrapValidator(_as_given)]
"""A float. An integer stays an integer: JSON writes 1 and 1.0 differently, and fingerprints hash the JSON."""


class Section(BaseModel):
    """A group of settings: immutable, no unknown names, each value of its declared type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Config(Section):
    """Settings that raise InputError, not pydantic's ValidationError, where they are wrong.

    Raises:
        InputError: see `settings_error`.
    """

    def __init__(self, /, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise settings_error(error, type(self).__name__, type(self)) from error


def settings_error(error: ValidationError, where: object, model: type[BaseModel]) -> InputError:
    """All wrong settings of a pydantic error as one InputError.

    Args:
        error: what pydantic raised while it validated `model`.
        where: where the settings are from: a file, a class or a command-line option.
        model: the validated model. It gives the known names, from which the hint of an unknown name is taken.

    Returns:
        The error of a single wrong setting, or an error whose first line is their number, followed by one line per
        wrong setting: its name, the value found and what is allowed; of an unknown setting, the nearest known name. The
        value of an unknown setting is left out, because it may be a secret in the wrong place.
    """
    problems = [_problem(dict(each), where, model) for each in error.errors(include_url=False)]
    if len(problems) == 1:
        return problems[0]
    return InputError(f"{len(problems)} settings are wrong\n" + "\n".join(f"- {problem}" for problem in problems))


def _problem(error: dict[str, Any], where: object, model: type[BaseModel]) -> InputError:
    """One entry of `ValidationError.errors` as an InputError."""
    location: tuple[int | str, ...] = error["loc"]
    place = ", ".join(filter(None, (str(where), ".".join(map(str, location)))))
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # raised by a validator: more precise than pydantic's message
        within = place if cause.where is None else f"{place}, {cause.where}"
        return InputError(cause.what, where=within, found=cause.found, hint=cause.hint)
    if error["type"] == "extra_forbidden":
        nearest = _nearest(model, location)
        return InputError(
            "unknown setting",
            where=place,
            hint=f"did you mean {nearest}?" if nearest else "remove it, or correct its name",
        )
    if error["type"] == "missing":  # pydantic reports the whole section as the value
        return InputError("a setting is missing", where=place, hint="add it")
    found = error["input"]
    allowed = error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return InputError(
        "a setting is wrong", where=place, found=redacted(found) if isinstance(found, str) else found, hint=allowed
    )


def _nearest(model: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    """The known name most similar to an unknown one, None where none is similar.

    Settings of sections below are searched too, so that a setting in the wrong place is found.
    """
    *above, name = map(str, location)
    section: Any = model
    for each in above:
        field = getattr(section, "model_fields", {}).get(each)
        section = field and field.annotation
    names: dict[str, str] = {}
    for dotted in _dotted_names(section):
        names.setdefault(dotted.rpartition(".")[2], dotted)
        names[dotted] = dotted
    matches = difflib.get_close_matches(name, names, n=1)
    return ".".join([*above, names[matches[0]]]) if matches else None


def _dotted_names(model: Any) -> list[str]:
    """The names of a model's settings, of nested models as `section.name`; none for what is no model."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    names = []
    for name, field in model.model_fields.items():
        names += [name, *(f"{name}.{below}" for below in _dotted_names(field.annotation))]
    return names
