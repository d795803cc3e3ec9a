"""Exceptions whose message tells the reader what is wrong and how to fix it.

Every message has up to four parts: what is wrong, where, the value that was found, and a hint what to do.
There are two kinds, because callers handle them differently. An `InputError` needs a person and is never retried.
An `UnavailableError` may pass without intervention and may be retried.
"""

from __future__ import annotations

__all__ = ["InputError", "MultitronError", "UnavailableError"]

_MAX_FOUND = 200  # characters of the found value in a message


class MultitronError(Exception):
    """Base class of all exceptions that this project raises on purpose.

    Args:
        what: What is wrong, one clause.
        where: File, line, table, setting or address at which it was found.
        found: The offending value, shown with `repr` and cut at 200 characters.
        hint: What the reader should do, one sentence.
    """

    def __init__(self, what: str, *, where: object = None, found: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.found, self.hint = what, where, found, hint
        parts = [what]
        if where is not None:
            parts.append(f"where: {where}")
        if found is not None:
            text = repr(found)
            parts.append(f"found: {text if len(text) <= _MAX_FOUND else text[:_MAX_FOUND] + '…'}")
        if hint is not None:
            parts.append(f"hint: {hint}")
        super().__init__("; ".join(parts))


class InputError(MultitronError, ValueError):
    """Wrong data, configuration or argument that a person has to correct; a retry cannot help."""


class UnavailableError(MultitronError, ConnectionError):
    """An external service, for example a server or an object store, does not respond; a retry may help."""
