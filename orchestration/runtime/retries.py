"""Which failure is tried again, and by whom.

Each layer retries what it alone can see, a bounded number of times, and hands the rest up:

| layer | what it sees | attempts |
|---|---|---|
| request | a server that restarts or is slow | for 20 s (`serving.triton_scorer`) |
| commit | another writer's commit | 50, and 5 whole writes (`multitron_core.delta_stream`) |
| step | an `UnavailableError`: server, object store, lost race | 1 + 3, after 10, 20, 40 s (here) |
| run | a process that died | 1 + 2 (`run_retries` in dagster.yaml) |
| night | a run that failed for a reason that may pass | 1 + 3, after 5, 15, 30 min (`orchestration.nights`) |

What a person has to mend (`InputError`: bad input, a failed gate, a broken contract, a full disk), and every other
exception, fails at once in all of them: more attempts would only delay the message.
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
"""Seconds before the first retry; each further one waits twice as long."""

KIND = "kind"
TRANSIENT = "transient: tried again until the attempts were used up; it may pass by itself"
PERMANENT = "permanent: not tried again, a person has to mend it"


@contextmanager
def failures(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext,
    *,
    first_delay: float | None = None,
) -> Iterator[None]:
    """Turn our errors into Dagster's: what may pass is tried again, what must be mended fails with its four parts.

    Args:
        context: of the asset or op.
        first_delay: seconds before the first retry; None for `FIRST_DELAY`.

    Raises:
        dagster.RetryRequested: in place of an `UnavailableError`, at most `MAX_RETRIES` times.
        dagster.Failure: in place of an `InputError`, of the last `UnavailableError`, and of an error that would show a
            secret.
    """
    try:
        yield
    except Exception as error:
        ours = translate_error(error)
        if isinstance(ours, UnavailableError) and context.retry_number < MAX_RETRIES:
            context.log.warning("attempt %d failed: %s", context.retry_number + 1, redacted(str(ours)))
            delay = FIRST_DELAY if first_delay is None else first_delay
            raise dg.RetryRequested(MAX_RETRIES, delay * 2**context.retry_number) from _safe(error)
        if ours is not None:
            raise _failure(ours) from _safe(error)
        told = "".join(traceback.format_exception(error))
        if redacted(told) != told:  # Dagster would store the text of the exception and of everything that caused it
            raise dg.Failure(redacted(told), metadata={KIND: PERMANENT}, allow_retries=False) from None
        raise


def _safe(error: Exception) -> Exception | None:
    """The cause to be stored beside a failure; None where it, or what caused it, would show a secret."""
    told = "".join(traceback.format_exception(error))
    return error if redacted(told) == told else None


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
