"""Which failure is tried again, and by whom.

A step's retry policy sees exceptions: it is for what may pass by itself (`UnavailableError`, a commit conflict). What
a person has to mend (`InputError`) is turned into Dagster's `Failure` without retries, or three attempts would only
delay the message. A run whose process died is started again by the instance (`run_retries` in dagster.yaml).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from multitron_core.errors import InputError

RETRY_TRANSIENT = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For steps that talk to a server or a store."""


@contextmanager
def permanent_failures() -> Iterator[None]:
    """Report what a person has to mend as a failure that is not retried.

    Raises:
        dagster.Failure: in place of an `InputError`, with its four parts as metadata.
    """
    try:
        yield
    except InputError as error:
        raise dg.Failure(
            description=str(error),
            metadata={
                name: str(value)
                for name, value in vars(error).items()
                if name in ("what", "where", "found", "mend") and value is not None
            },
            allow_retries=False,
        ) from error
