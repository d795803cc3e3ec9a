"""What goes wrong, said so that the reader can hint it.

Every refusal of the project names four things: what is wrong, where, the value that was found, and what to do.
Two kinds exist because they are handled differently: what a person has to hint is never retried, what may pass by
itself is.
"""

from __future__ import annotations


class MultitronError(Exception):
    """A refusal that names what is wrong, where, the value found and the hint.

    Args:
        what: what is wrong, one clause.
        where: file, line, table, setting or address it was found at.
        found: the offending value; shown with `repr`, cut at 200 characters.
        hint: what the reader should do, one sentence.
    """

    def __init__(self, what: str, *, where: object = None, found: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.found, self.hint = what, where, found, hint
        parts = [what]
        if where is not None:
            parts.append(f"where: {where}")
        if found is not None:
            text = repr(found)
            parts.append(f"found: {text if len(text) <= 200 else text[:200] + '…'}")
        if hint is not None:
            parts.append(f"hint: {hint}")
        super().__init__("; ".join(parts))


class InputError(MultitronError, ValueError):
    """Something a person has to hint: data, configuration or an argument. Retrying cannot help."""


class UnavailableError(MultitronError, ConnectionError):
    """Something outside is not answering now: a server, an object store. Retrying may help."""
