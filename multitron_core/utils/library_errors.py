"""Translate errors of the operating system, delta-rs and polars into InputError or UnavailableError.

delta-rs, polars and safetensors pass on errors of their Rust code as text only, so the kind is recognised by the text.
"""

from __future__ import annotations

import errno
import re

from deltalake.exceptions import CommitFailedError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.redaction import redacted

_FULL = re.compile(r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b")
_DENIED = re.compile(r"Read-only file system|os error 30\b|Permission denied|os error 13\b")
_OBJECT_STORE = re.compile(r"Generic \w+ error|object-store error|Error performing \w+ ", re.IGNORECASE)
_TEMPORARY = re.compile(
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
    """Translate an error of a library into one of the project's exceptions.

    Args:
        error: The exception that was raised; its causes are examined too.

    Returns:
        `InputError` for a full disk, a denied access or a damaged Delta log. `UnavailableError` for an object store
        that does not respond or a commit that lost a race. An `InputError` or `UnavailableError` is returned as it is.
        None for any other error. Secrets in the text are replaced, see `redaction`.
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
            hint="free space (`df -h`, the asset `housekeeping`), then run this again; no data was written partially",
        )
    if isinstance(error, CommitFailedError):
        return UnavailableError("another writer committed at the same time", found=_short(text), hint="run this again")
    if _OBJECT_STORE.search(text):
        if _TEMPORARY.search(text):
            return UnavailableError(
                "the object store does not respond",
                found=_short(text),
                hint="check that it runs and can be reached from this machine",
            )
        return InputError(
            "the object store denies the request",
            found=_short(text),
            hint="check its address, the credentials and their permissions",
        )
    if code in (errno.EROFS, errno.EACCES, errno.EPERM) or _DENIED.search(text):
        return InputError(
            "this process has no permission to read or write a file",
            where=_file(error),
            found=_short(text),
            hint="give its user the permission, or use another location",
        )
    if type(error).__module__ in ("_internal", "deltalake.exceptions") and _DAMAGED_LOG.search(text):
        return InputError(
            "an entry of a table's Delta log is damaged",
            found=_short(text),
            hint="follow docs/runbook.md, `A damaged table`: move the entry away and score its partitions again",
        )
    return None


def _text(error: BaseException) -> str:
    """Messages of an error and of its causes, without colour codes and Rust backtraces."""
    messages, seen = [], set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        messages.append(str(current))
        current = current.__cause__ or current.__context__
    return _BACKTRACE.sub("", _COLOURS.sub("", "\n".join(messages)))


def _short(text: str) -> str:
    return " ".join(redacted(text).split())[:180]


def _file(error: BaseException) -> str | None:
    name = getattr(error, "filename", None)
    return str(name) if name else None
