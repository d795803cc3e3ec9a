"""The Delta tables of a shop: write whole partitions atomically, publish them, read them by name.

lake = Lake("home/lake")
lake.create(pl.Int64)  # once, before any process writes
lake.replace_partition(date(2026, 1, 31), "0.50", batches, model_version="7", k=20)
lake.publish(date(2026, 1, 31), "0.50")  # after its checks have passed
lake.read_recommendations("0.50")
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

import polars as pl
from deltalake import DeltaTable

from multitron_core.errors import InputError
from multitron_core.lake import channels, delta_stream, partition_files, publication, replace_where
from multitron_core.lake.publication import Publication
from multitron_core.lake.ranked_lists import KnownItems, checked_lists
from multitron_core.lake.replace_where import Key, RowsCommit, checked_date
from multitron_core.lake.tables import Tables
from multitron_core.preference.keys import pi_key, pi_vector


@dataclass(frozen=True)
class PartitionCommit:
    """What one call of `Lake.replace_partition` wrote."""

    table: str
    run_date: date
    pi: str
    rows: int
    sessions: int  # number of lists; in other tables than `recommendations` lists of items or audiences
    delta_version: int
    files: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Lake(Tables):
    """The Delta tables of a shop.

    Args:
        root: A path, or an address such as `s3://bucket/prefix`.
        storage_options: Credentials and settings of the object store, as deltalake takes them.
    """

    def replace_partition(
        self,
        run_date: date,
        pi: str,
        batches: Iterable[pl.DataFrame],
        *,
        model_version: str,
        k: int,
        table: str = "recommendations",
        items: KnownItems | None = None,
        expected_lists: int | None = None,
    ) -> PartitionCommit:
        """Replace the partition (run_date, pi) in one streamed commit: either all rows, checked, or none.

        Rows of two concurrent writers of one partition are never mixed. Delta refuses the later commit; it is then
        repeated if `batches` can be read again (a list, not a generator).

        Args:
            run_date: Date of the night (UTC).
            pi: Key of the preference, "0.00" to "1.00".
            batches: Frames with the columns `session_id`, `rank` (from 1), `item_id` and `score`, sorted by
                `session_id`, then `rank`. `ranked_lists.checked_lists` describes the checks.
            model_version: Version of the model that computed the scores.
            k: Number of items per list.
            table: Table of ranked lists to write; the column of its list key replaces `session_id`.
            items: Items that are allowed, for example the vocabulary of the model; None skips this check.
            expected_lists: Required number of lists; None accepts any number above 0.

        Returns:
            The size and the Delta version of the new partition.

        Raises:
            InputError: A row violates the contract; the table is unchanged.
            UnavailableError: Another writer replaced the same partition in the meantime; its rows remain.
        """
        run_date, pi = checked_date(run_date), pi_key(pi)
        if not isinstance(model_version, str) or not 1 <= len(model_version.encode()) <= 64:
            # Delta truncates longer texts in the file statistics, from which `partitions` reads the version.
            raise InputError(
                "a model version must be a string of 1 to 64 bytes",
                found=model_version,
                hint="pass the deployed version",
            )
        contract = self.contract(table, self.open(table))
        if contract.list_key is None:
            raise InputError("not a table of ranked lists", found=table, hint="use replace_rows")
        schema = contract.polars_schema()
        pi_click, pi_order = pi_vector(pi)
        rows = 0

        def frames() -> Iterator[pl.DataFrame]:
            nonlocal rows
            rows = 0
            for frame in checked_lists(
                batches,
                key=contract.list_key or "",
                key_type=schema[contract.list_key or ""],
                item_type=schema["item_id"],
                k=k,
                items=items,
                expected_lists=expected_lists,
            ):
                rows += len(frame)
                yield frame.with_columns(
                    pi=pl.lit(pi),
                    pi_click=pl.lit(pi_click),
                    pi_order=pl.lit(pi_order),
                    model_version=pl.lit(model_version),
                    run_date=pl.lit(run_date),
                ).select(schema.names())

        start = time.monotonic()
        written = delta_stream.replace(
            lambda: self.open(table),
            frames,
            schema,
            repeatable=not isinstance(batches, Iterator),  # a generator can be read only once
            predicate=f"run_date = '{run_date.isoformat()}' AND pi = '{pi}'",
            metadata={"run_date": run_date.isoformat(), "pi": pi, "model_version": model_version, "k": k},
        )
        files = partition_files.partition_files(written).filter(run_date=run_date, pi=pi)
        return PartitionCommit(
            table=table,
            run_date=run_date,
            pi=pi,
            rows=rows,
            sessions=rows // k,
            delta_version=written.version(),
            files=len(files),
            bytes=int(files["bytes"].sum()),
            seconds=time.monotonic() - start,
        )

    def replace_rows(self, table: str, rows: pl.DataFrame | pl.LazyFrame, *, key: Key | None = None) -> RowsCommit:
        """Replace the rows of a table that have the partition values `key`; see `replace_where.replace_rows`."""
        return replace_where.replace_rows(self, table, rows, key=key)

    def partitions(self, table: str = "recommendations") -> pl.DataFrame:
        """All partitions of a table, published or not, newest first; reads only the Delta log.

        Returns:
            Columns `run_date`, `pi`, `rows`, `files`, `bytes`, `model_version`.
        """
        return partition_files.partitions(self.open(table))

    def publish(
        self, run_date: date | str, pi: str, *, table: str = "recommendations", delta_version: int | None = None
    ) -> Publication:
        """Publish a partition, which makes it visible to readers; see `publication.publish`."""
        return publication.publish(self, run_date, pi, table=table, delta_version=delta_version)

    def publish_night(self, run_date: date | str, pi: str, versions: Mapping[str, int | None]) -> list[Publication]:
        """Publish partitions of several tables in one commit; see `publication.publish_night`."""
        return publication.publish_night(self, run_date, pi, versions)

    def publications(self, table: str | None = None) -> pl.DataFrame:
        """Published partitions of one table or of all, newest first; see `publication.publications`."""
        return publication.publications(self, table)

    def read_recommendations(
        self,
        pi: str | None = None,
        run_date: date | str = "latest",
        *,
        channel: str | None = None,
        session_ids: Iterable[str] | Iterable[int] | None = None,
        table: str = "recommendations",
        unpublished: bool = False,
    ) -> pl.DataFrame:
        """Read the ranked lists of one preference and night, sorted by list key, then rank.

        Only published rows are read, exactly as they were published, so an unchecked night is not visible.

        Args:
            pi: Key of the preference; omit it when `channel` is given.
            run_date: A date, its ISO text, or "latest" for the latest night published for this preference.
            channel: Name of a channel; its table, preference, items per list and exclusions are applied.
            session_ids: Sessions to read; None reads all. Only files and row groups that may contain them are read.
            table: Table of ranked lists to read; `session_ids` are then values of its list key.
            unpublished: Whether to read the current rows, published or not; "latest" is then the newest night written.

        Returns:
            All columns of the table. Sessions without recommendations have no rows.

        Raises:
            InputError: The night or the channel does not exist, or the night is not published; the hint names those
                that are available. Also if a data file was changed without the table's log.
        """
        if (pi is None) == (channel is None):
            raise InputError(
                "either a preference or a channel is needed",
                found={"pi": pi, "channel": channel},
                hint='pass one of them, for example pi "0.50"',
            )
        shown = None if channel is None else channels.read_channel(self, channel)
        if shown is not None:
            pi, table = shown["pi"], shown["table_name"]
        pi = pi_key(pi or "")
        requested = None if run_date == "latest" else checked_date(run_date)
        find = self._newest_night if unpublished else partial(publication.published_night, self)
        opened, night = find(table, pi, requested)
        contract = self.contract(table, opened)
        key = contract.list_key or "run_date"
        conditions = [pl.col("run_date") == night, pl.col("pi") == pi]
        if session_ids is not None:
            # polars compares a plain list with the row groups' statistics, but not a series.
            conditions.append(pl.col(key).is_in(_ids(session_ids, contract.polars_schema()[key])))
        try:
            lists = pl.scan_delta(opened).filter(*conditions).sort(key, "rank").collect()
        except (
            pl.exceptions.PanicException,
            pl.exceptions.ComputeError,
        ) as error:  # polars trusts the sizes in the log
            if "://" in str(self.root) and isinstance(error, pl.exceptions.ComputeError):
                raise  # errors of an object store have this type too, and a retry may help
            raise InputError(
                "a data file differs from the table's log: it was changed from outside",
                where=f"{self.uri(table)}, {night}, pi {pi}",
                found=str(error).splitlines()[0],
                hint="score this night and pi again, or restore the table; see docs/runbook.md",
            ) from error
        if shown is None:
            return lists
        return channels.as_shown(lists, key, k=shown["k"], exclude_items=shown["exclude_items"])

    def _newest_night(self, table: str, pi: str, run_date: date | None) -> tuple[DeltaTable, date]:
        """The newest version of the table and the night to read, published or not."""
        opened = self.open(table)
        existing = partition_files.partitions(opened)
        nights = existing.filter(pi=pi)["run_date"].to_list()
        if not nights or (run_date is not None and run_date not in nights):
            raise InputError(
                "there is no such partition",
                where=opened.table_uri,
                found={"run_date": "latest" if run_date is None else run_date.isoformat(), "pi": pi},
                hint=f"for pi {pi} there are the nights {', '.join(map(str, nights[:10])) or 'none'}; "
                f"the preferences are {', '.join(existing['pi'].unique().sort().to_list()) or 'none'}",
            )
        return opened, run_date or nights[0]


def _ids(values: Iterable[str] | Iterable[int], kind: pl.DataType) -> list[str] | list[int]:
    """Convert ids to a list and check that they have the type of the column."""
    ids = list(values)
    try:
        return pl.Series(ids, dtype=kind).to_list()
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise InputError(
            "ids have another type than the table's", where="session_ids", found=ids[:5], hint=f"pass {kind} values"
        ) from error
