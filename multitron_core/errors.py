"""What goes wrong, said so that the reader can mend it.

Every refusal of the project names four things: what is wrong, where, the value that was found, and what to do.
Two kinds exist because they are handled differently: what a person has to mend is never retried, what may pass by
itself is.
"""

from __future__ import annotations


class MultitronError(Exception):
    """A refusal that names what is wrong, where, the value found and the mend.

    Args:
        what: what is wrong, one clause.
        where: file, line, table, setting or address it was found at.
        found: the offending value; shown with `repr`, cut at 200 characters.
        mend: what the reader should do, one sentence.
    """

    def __init__(self, what: str, *, where: object = None, found: object = None, mend: str | None = None) -> None:
        self.what, self.where, self.found, self.mend = what, where, found, mend
        parts = [what]
        if where is not None:
            parts.append(f"where: {where}")
        if found is not None:
            text = repr(found)
            parts.append(f"found: {text if len(text) <= 200 else text[:200] + '…'}")
        if mend is not None:
            parts.append(f"mend: {mend}")
        super().__init__("; ".join(parts))


class InputError(MultitronError, ValueError):
    """Something a person has to mend: data, configuration or an argument. Retrying cannot help."""


class UnavailableError(MultitronError, ConnectionError):
    """Something outside is not answering now: a server, an object store. Retrying may help."""
