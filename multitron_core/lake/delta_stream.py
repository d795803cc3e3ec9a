"""Write a stream of frames to a Delta table in one atomic commit.

Each batch is encoded when it arrives, so memory stays constant. An exception of the stream aborts the commit and is
raised unchanged.
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

# Small row groups make point reads fast: the rows of a session are in one row group of 131,072 rows.
WRITER_PROPERTIES = WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=131_072)
COMMIT_RETRIES = 50  # after a commit of another partition; each retry reads the log again
ATTEMPTS = 5  # complete writes, after another writer replaced the same partition


def create(uri: str, schema: Any, storage_options: dict[str, str] | None, **options: Any) -> None:
    """Create an empty table as version 0; harmless if another process creates it first.

    Args:
        uri: A local folder, created if missing, or an address.
        schema: Arrow or Delta schema.
        storage_options: Settings for an address, as deltalake takes them.
        options: Further arguments of `DeltaTable.create`.

    Raises:
        DeltaError: The table could not be created and does not exist.
    """
    if "://" not in uri:
        Path(uri).mkdir(parents=True, exist_ok=True)
    try:
        DeltaTable.create(
            uri,
            schema,
            storage_options=storage_options,
            # With retries, the second process would write new metadata with another table id as version 1.
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
    """Call `write_stream`, and repeat it if another writer has replaced the same rows in the meantime.

    Args:
        open_table: Opens the table at its newest version.
        frames: Returns the stream from its start, at each call.
        schema: See `write_stream`.
        repeatable: Whether `frames` can be called more than once.
        options: Further arguments of `write_stream`.

    Returns:
        The table at the committed version.

    Raises:
        UnavailableError: The rows of the other writer remain, and the stream cannot be repeated or was repeated
            `ATTEMPTS` times.
        Exception: Of `frames`, unchanged; the table is unchanged as well.
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
                    hint="its rows remain; run this again to replace them",
                ) from error
            time.sleep(random.uniform(0.05, 0.1) * 2**attempt)
    raise AssertionError("unreachable: the loop returns or raises")


def arrow_schema(schema: pl.Schema) -> Schema:
    """Convert a polars schema to an Arrow schema."""
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
    """Replace the rows that match a predicate by a stream of frames, in one commit; rows keep their order.

    Args:
        table: Opened at the version from which concurrent changes are detected; afterwards at the committed version.
        frames: Frames with the columns of `schema`; read once.
        schema: Columns and types of every frame.
        predicate: SQL condition on partition columns; None replaces all rows.
        metadata: Stored in the `commitInfo` of the commit.
        schema_mode: "merge" adds new columns to the table. "overwrite", allowed only without predicate, replaces the
            schema. None keeps the schema.

    Raises:
        deltalake.exceptions.CommitFailedError: Another writer has replaced the same rows in the meantime.
        Exception: Of `frames`, unchanged; the table is unchanged as well.
    """
    failures: list[BaseException] = []

    def stream() -> Iterator[RecordBatch]:
        try:
            for frame in frames:
                yield from Table.from_arrow(frame.rechunk()).to_batches()
        except BaseException as error:
            failures.append(error)  # delta-rs would pass on only its text
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
    """Restrict the calling thread to one CPU, on systems that support it (not macOS).

    delta-rs plans one parallel task per CPU that the calling thread may use, and their batches reach the file out of
    order. With a plan for one CPU, the order is preserved, and so are narrow value ranges per row group. The work,
    including that of the stream, is done by other threads, which use all CPUs. On other systems the order of batches
    may change; `Lake` sorts the rows that it returns.
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
