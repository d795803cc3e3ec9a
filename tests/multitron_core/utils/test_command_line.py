from __future__ import annotations

import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.command_line import command


@pytest.mark.parametrize("error", [InputError("no such file", where="a.csv"), UnavailableError("no such file")])
def test_command_reports_a_refusal_with_status_2(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        raise error

    assert main() == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_command_passes_arguments_and_status_on() -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        """The function's text."""
        return len(arguments or [])

    assert main(["a", "b", "c"]) == 3
    assert main.__doc__ == "The function's text."


def test_command_lets_other_errors_through() -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])
