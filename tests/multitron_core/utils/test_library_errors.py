"""Errors of libraries become the right kind of exception; all others are left to the caller."""

from __future__ import annotations

import errno

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.library_errors import translate_error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/lake/x"), InputError, "disk is full; where: /lake/x"),
        (pl.exceptions.ComputeError("Disk quota exceeded (os error 122)"), InputError, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/lake"), InputError, "no permission.*where: /lake"),
        (DeltaError("Read-only file system"), InputError, "no permission"),
        (CommitFailedError("a concurrent transaction"), UnavailableError, "another writer committed"),
        (OSError("Generic S3 error: 503 Service Unavailable"), UnavailableError, "does not respond"),
        (DeltaError("Generic S3 error: Error performing GET: Connection refused"), UnavailableError, "not respond"),
        (OSError("Generic S3 error: 403 Forbidden"), InputError, "denies the request"),
        (DeltaError("Json error: EOF while parsing a value"), InputError, "Delta log is damaged"),
    ],
)
def test_translate_error_recognises(error: Exception, kind: type[Exception], message: str) -> None:
    translated = translate_error(error)
    assert type(translated) is kind
    with pytest.raises(kind, match=message):
        raise translated


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), ValueError("Json error"), OSError("odd")])
def test_translate_error_leaves_other_errors(error: Exception) -> None:
    assert translate_error(error) is None


@pytest.mark.parametrize("error", [InputError("wrong"), UnavailableError("away")])
def test_translate_error_keeps_errors_of_the_project(error: Exception) -> None:
    assert translate_error(error) is error


def test_translate_error_reads_causes_and_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    error = RuntimeError("the write failed")
    error.__cause__ = OSError("\x1b[31mGeneric S3 error\x1b[0m: very-secret\n  12: core::ops\n   at ./src/lib.rs:1")
    translated = translate_error(error)
    assert isinstance(translated, InputError)
    assert translated.found == "the write failed Generic S3 error: ***"
