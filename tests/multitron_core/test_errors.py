"""Messages and types of the project's exceptions."""

from __future__ import annotations

import pytest

from multitron_core.errors import InputError, MultitronError, UnavailableError


def test_multitron_error_joins_its_parts() -> None:
    error = MultitronError("not a date", where="shop.toml", found="32 May", hint="use ISO dates")
    assert str(error) == "not a date; where: shop.toml; found: '32 May'; hint: use ISO dates"
    assert (error.what, error.where, error.found, error.hint) == ("not a date", "shop.toml", "32 May", "use ISO dates")
    assert str(MultitronError("not a date")) == "not a date"
    assert str(MultitronError("no rows", found=0)) == "no rows; found: 0", "a value that is false is shown"


def test_multitron_error_cuts_long_values() -> None:
    assert str(MultitronError("too long", found="x" * 300)) == "too long; found: '" + "x" * 199 + "…"


@pytest.mark.parametrize(("kind", "base"), [(InputError, ValueError), (UnavailableError, ConnectionError)])
def test_multitron_error_kinds_extend_python_ones(kind: type[MultitronError], base: type[Exception]) -> None:
    with pytest.raises(base):
        raise kind("wrong")
    assert issubclass(kind, MultitronError)
