"""One streamed, atomic commit to a Delta table: frames in, a new version or nothing.

Memory stays flat: a batch is encoded as it comes. An exception of the stream aborts the commit and reaches the
caller as it was raised.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
from arro3.core import RecordBatch, RecordBatchReader, Schema, Table
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from multitron_core.errors import UnavailableError

# Small row groups make point reads cheap: a session's rows lie in one row group of 128 k rows.
WRITER_PROPERTIES = WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=131_072)
COMMIT_RETRIES = 50  # against writers of other partitions, which cost a re-read of the log each
ATTEMPTS = 5  # whole writes, against writers of the same partition


def create(uri: str, schema: Any, storage_options: dict[str, str] | None, **options: Any) -> None:
    """Create an empty table as version 0; harmless when somebody else is faster.

    Args:
        uri: a folder of this machine, which is made, or an address.
        schema: of Arrow or of Delta.
        storage_options: for an address.
        options: more of `DeltaTable.create`.

    Raises:
        DeltaError: the table could not be created and is not there.
    """
    if "://" not in uri:
        Path(uri).mkdir(parents=True, exist_ok=True)
    try:
        DeltaTable.create(
            uri,
            schema,
            storage_options=storage_options,
            # With retries, whoever comes second replaces the metadata in version 1, under another table id.
            commit_properties=CommitProperties(max_commit_retries=0),
            **options,
        )
    except DeltaError:
        if not DeltaTable.is_deltatable(uri, storage_options):
            raise


def replace(
    open_table: Callable[[], DeltaTable],
    frames: Callable[[], Iterable[pl.DataFrame]],
    schema: pl.Schema,
    *,
    repeatable: bool,
    **options: Any,
) -> DeltaTable:
    """`write_stream`, written again when another writer has replaced the same rows meanwhile.

    Args:
        open_table: gives the table at its newest version.
        frames: gives the stream, from its beginning at each call.
        schema: see `write_stream`.
        repeatable: whether `frames` can be called a second time.
        options: see `write_stream`.

    Returns:
        The table at the version committed.

    Raises:
        UnavailableError: the other writer's rows stand, and the stream cannot be repeated (any more).
        Whatever `frames` raises; the table is then as it was.
    """
    for attempt in range(1, ATTEMPTS + 1):
        table = open_table()
        try:
            write_stream(table, frames(), schema, **options)
            return table
        except CommitFailedError as error:
            if attempt == ATTEMPTS or not repeatable:
                raise UnavailableError(
                    "another writer replaced the same rows at the same time",
                    where=table.table_uri,
                    found=options.get("predicate"),
                    hint="its rows stand; run this again if they are not the wanted ones",
                ) from error
            time.sleep(random.uniform(0.05, 0.1) * 2**attempt)
    raise AssertionError("unreachable: the loop returns or raises")


def arrow_schema(schema: pl.Schema) -> Schema:
    """A polars schema in Arrow's terms."""
    return Table.from_arrow(pl.DataFrame(schema=schema)).schema


def write_stream(
    table: DeltaTable,
    frames: Iterable[pl.DataFrame],
    schema: pl.Schema,
    *,
    predicate: str | None,
    metadata: dict[str, Any],
    schema_mode: Literal["merge", "overwrite"] | None = None,
) -> None:
    """Replace the rows that match `predicate` by `frames`, in one commit; rows keep their order.

    Args:
        table: opened at the version that the predicate is judged against.
        frames: frames of `schema`, read once.
        schema: columns and types of every frame.
        predicate: SQL over partition columns; None replaces all rows.
        metadata: goes into the commit's `commitInfo`.
        schema_mode: "merge" adds columns that the table does not have; "overwrite", without predicate only, gives the
            table another schema; None keeps the schema.

    `table` then stands at the version committed.

    Raises:
        deltalake.exceptions.CommitFailedError: another writer has replaced the same rows meanwhile.
        Whatever `frames` raises; the table is then as it was.
    """
    failures: list[BaseException] = []

    def stream() -> Iterator[RecordBatch]:
        try:
            for frame in frames:
                yield from Table.from_arrow(frame.rechunk()).to_batches()
        except BaseException as error:
            failures.append(error)  # delta-rs would hand on its text only
            raise

    try:
        with _on_one_cpu():
            write_deltalake(
                table,
                RecordBatchReader.from_batches(arrow_schema(schema), stream()),
                mode="overwrite",
                predicate=predicate,
                schema_mode=schema_mode,
                writer_properties=WRITER_PROPERTIES,
                commit_properties=CommitProperties(custom_metadata=metadata, max_commit_retries=COMMIT_RETRIES),
            )
    except Exception:
        if failures:
            raise failures[0] from None
        raise


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Keep the calling thread on one CPU, where threads can be kept (not on macOS).

    delta-rs plans as many parallel tasks as the calling thread may use CPUs, and their batches reach the file out of
    order. Planned for one, the order is kept and so are tight row groups; the work itself, the stream's too, is done by
    threads that use all CPUs. Elsewhere batches may change places; every reader here sorts what it returns.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
