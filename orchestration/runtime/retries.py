"""Retries: which failure is retried, by which layer, how often.

Each layer retries the failures that only it can detect, a bounded number of times, and passes all others up:

| layer | failure | attempts |
|---|---|---|
| request | a server restarts or is slow | for 20 s (`serving.triton_scorer`) |
| commit | another writer committed first | 50, and 5 complete writes (`multitron_core.lake.delta_stream`) |
| step | an `UnavailableError`: server, object store, lost race | 1 + 3, after 10, 20, 40 s (this module) |
| run | a process died | 1 + 2 (`run_retries` in dagster.yaml) |
| night | a run failed for a transient reason | 1 + 3, after 5, 15, 30 min (`automation.night_steps`) |

An `InputError` (bad input, a failed gate, a broken contract, a full disk) and every other exception fail at once in all
layers: a person must act, and retries would only delay the message.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from multitron_core.errors import InputError, UnavailableError
from multitron_core.utils.library_errors import translate_error
from multitron_core.utils.redaction import redacted

MAX_RETRIES = 3
FIRST_DELAY = 10.0
"""Seconds before the first retry; each further retry waits twice as long as the one before."""

KIND = "kind"
TRANSIENT = "transient: tried again until the attempts were used up; it may pass by itself"
"""Value of `KIND` in recorded runs; the night sensor compares it, so the text must stay."""
PERMANENT = "permanent: not retried; a person must fix the cause"


@contextmanager
def failures(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext,
    *,
    first_delay: float | None = None,
) -> Iterator[None]:
    """Translate the errors of the block into Dagster's: retry transient ones, fail with metadata for permanent ones.

    Args:
        context: of the asset, check or op.
        first_delay: seconds before the first retry; None for `FIRST_DELAY`.

    Raises:
        dagster.RetryRequested: for an `UnavailableError`, at most `MAX_RETRIES` times.
        dagster.Failure: for an `InputError`, for the last `UnavailableError`, and for an error whose text contains a
            secret. Its metadata are the four parts of the error (what, where, found, hint) and its kind.
    """
    try:
        yield
    except Exception as error:
        translated = translate_error(error)
        if isinstance(translated, UnavailableError) and context.retry_number < MAX_RETRIES:
            context.log.warning("attempt %d failed: %s", context.retry_number + 1, redacted(str(translated)))
            delay = FIRST_DELAY if first_delay is None else first_delay
            raise dg.RetryRequested(MAX_RETRIES, delay * 2**context.retry_number) from _safe(error)
        if translated is not None:
            raise _failure(translated) from _safe(error)
        text = "".join(traceback.format_exception(error))
        if redacted(text) != text:  # Dagster would store the text of the exception and of all its causes
            raise dg.Failure(redacted(text), metadata={KIND: PERMANENT}, allow_retries=False) from None
        raise


def _safe(error: Exception) -> Exception | None:
    """The cause to store with a failure; None if its text, or that of its causes, contains a secret."""
    text = "".join(traceback.format_exception(error))
    return error if redacted(text) == text else None


def _failure(error: InputError | UnavailableError) -> dg.Failure:
    parts = {name: getattr(error, name) for name in ("what", "where", "found", "hint")}
    return dg.Failure(
        description=redacted(str(error)),
        metadata={
            **{name: redacted(str(value)) for name, value in parts.items() if value is not None},
            KIND: TRANSIENT if isinstance(error, UnavailableError) else PERMANENT,
        },
        allow_retries=False,
    )
