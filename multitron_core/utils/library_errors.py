"""What the libraries beneath say when the world outside fails, in our two kinds of refusal.

delta-rs, polars and safetensors hand on the text of what their Rust side met; the kind has to be read from it.
"""

from __future__ import annotations

import errno
import re

from deltalake.exceptions import CommitFailedError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.redaction import redacted

_FULL = re.compile(r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b")
_NOT_ALLOWED = re.compile(r"Read-only file system|os error 30\b|Permission denied|os error 13\b")
_OBJECT_STORE = re.compile(r"Generic \w+ error|object-store error|Error performing \w+ ", re.IGNORECASE)
_PASSES = re.compile(
    r"\b(5\d\d (Internal|Bad|Service|Gateway|Slow|Insufficient)|429 Too Many)|timed? ?out|HTTP error"
    r"|error sending request|Connection (refused|reset)|connect error|dns error|SlowDown",
    re.IGNORECASE,
)
_DAMAGED_LOG = re.compile(
    r"Json error|Truncated record|Invalid JSON|EOF while parsing|expected value at line", re.IGNORECASE
)
_COLOURS = re.compile(r"\x1b\[\d+m")
_BACKTRACE = re.compile(r"^\s+\d+: <?\w[^\n]*$|^\s+at \./[^\n]*$", re.MULTILINE)


def translate_error(error: BaseException) -> InputError | UnavailableError | None:
    """A library's error as one of ours; None where it is none of the world's faults that are known here.

    Args:
        error: what was raised.

    Returns:
        `InputError` for a full disk, a refused access, a damaged Delta log; `UnavailableError` for an object store that
        does not answer and a commit that lost a race. Secrets in the text are blacked out.
    """
    if isinstance(error, InputError | UnavailableError):
        return error
    text = _text(error)
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(text):
        return InputError(
            "the disk is full",
            where=_file(error),
            found=_short(text),
            hint="free space (`df -h`, the asset `housekeeping`), then run this again: nothing was half written",
        )
    if isinstance(error, CommitFailedError):
        return UnavailableError("another writer committed at the same time", found=_short(text), hint="run this again")
    if _OBJECT_STORE.search(text):
        if _PASSES.search(text):
            return UnavailableError(
                "the object store does not answer", found=_short(text), hint="see that it runs and is reached from here"
            )
        return InputError(
            "the object store refuses", found=_short(text), hint="check address, credentials and their rights"
        )
    if code in (errno.EROFS, errno.EACCES, errno.EPERM) or _NOT_ALLOWED.search(text):
        return InputError(
            "this process may not write or read there",
            where=_file(error),
            found=_short(text),
            hint="give its user the right to, or name another place",
        )
    if type(error).__module__ in ("_internal", "deltalake.exceptions") and _DAMAGED_LOG.search(text):
        return InputError(
            "an entry of a table's Delta log is damaged",
            found=_short(text),
            hint="see docs/runbook.md, `A damaged table`: move the entry away and score its partitions again",
        )
    return None


def _text(error: BaseException) -> str:
    """The messages of an error and of what caused it."""
    told, seen = [], set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        told.append(str(current))
        current = current.__cause__ or current.__context__
    return _BACKTRACE.sub("", _COLOURS.sub("", "\n".join(told)))


def _short(text: str) -> str:
    return " ".join(redacted(text).split())[:180]


def _file(error: BaseException) -> str | None:
    name = getattr(error, "filename", None)
    return str(name) if name else None
