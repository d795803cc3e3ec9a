"""The exit status of commands, the same for every `python -m multitron_core...`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from multitron_core.errors import MultitronError

REFUSED = 2
"""Exit status of a refused input; argparse uses the same for wrong options."""


def command(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command's main function, so that a refused input is one message and an exit status.

    Args:
        main: from the command's arguments, None for those of the process, to its exit status.

    Returns:
        The same function, but a `MultitronError` is printed to standard error as `error: ...` and returns 2.
    """

    @functools.wraps(main)
    def guarded(arguments: list[str] | None = None) -> int:
        try:
            return main(arguments)
        except MultitronError as error:
            print(f"error: {error}", file=sys.stderr)
            return REFUSED

    return guarded
