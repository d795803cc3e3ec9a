"""Which failure is tried again, and by whom.

Inside a run only what may pass by itself is tried again: an `UnavailableError` (a server that restarts, a store that
does not answer, a commit that lost a race). What a person has to mend (`InputError`), and every other exception, fails
at once: more attempts would only delay the message. A run whose process died is started again by the instance
(`run_retries` in dagster.yaml).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from multitron_core.errors import InputError, UnavailableError

MAX_RETRIES = 3
FIRST_DELAY = 10.0
"""Seconds before the first retry; each further one waits twice as long."""


@contextmanager
def failures(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, *, first_delay: float = FIRST_DELAY
) -> Iterator[None]:
    """Turn our errors into Dagster's: what may pass is tried again, what must be mended fails with its four parts.

    Args:
        context: of the asset or op.
        first_delay: seconds before the first retry.

    Raises:
        dagster.RetryRequested: in place of an `UnavailableError`, at most `MAX_RETRIES` times.
        dagster.Failure: in place of an `InputError`, and of the last `UnavailableError`.
    """
    try:
        yield
    except UnavailableError as error:
        if context.retry_number < MAX_RETRIES:
            raise dg.RetryRequested(MAX_RETRIES, first_delay * 2**context.retry_number) from error
        raise _failure(error) from error
    except InputError as error:
        raise _failure(error) from error


def _failure(error: InputError | UnavailableError) -> dg.Failure:
    parts = {name: getattr(error, name) for name in ("what", "where", "found", "mend")}
    return dg.Failure(
        description=str(error),
        metadata={name: str(value) for name, value in parts.items() if value is not None},
        allow_retries=False,
    )
