"""The Delta tables of a shop: written a partition at a time, whole or not at all, and read back by name.

lake = Lake("home/lake")
lake.create(pl.Int64)                                    # serially, before anybody writes
lake.replace_partition(date(2026, 1, 31), "0.50", batches, model_version="7", k=20)
lake.publish(date(2026, 1, 31), "0.50")                  # when its checks have passed
lake.read_recommendations("0.50")
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from multitron_core.errors import InputError
from multitron_core.lake import channels, delta_stream, partition_files, publication, replace_where
from multitron_core.lake.contracts import CONTRACT_PROPERTY, CONTRACT_VERSION, TableContract, contracts
from multitron_core.lake.publication import Publication
from multitron_core.lake.ranked_lists import checked_lists
from multitron_core.lake.replace_where import Key, RowsCommit, checked_date
from multitron_core.preference.keys import pi_key, pi_vector
from multitron_core.sessions.vocabulary import Vocabulary

_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class PartitionCommit:
    """What one `replace_partition` wrote."""

    table: str
    run_date: date
    pi: str
    rows: int
    sessions: int  # lists, whatever the table's lists belong to
    delta_version: int
    files: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Lake:
    """A folder or an object store prefix with a Delta table a name.

    Args:
        root: a path, or an address such as `s3://bucket/prefix`.
        storage_options: credentials and settings of the object store, as deltalake takes them.
    """

    root: str | Path
    storage_options: dict[str, str] | None = field(default=None, repr=False)  # secrets

    def uri(self, table: str) -> str:
        """Where a table is.

        Raises:
            InputError: not a table name (lower case letters, digits, underscores).
        """
        if not _TABLE_NAME.fullmatch(table):
            raise InputError("not a table name", found=table, hint="use lower case letters, digits and underscores")
        root = str(self.root)
        return f"{root.rstrip('/')}/{table}" if "://" in root else str(Path(root).absolute() / table)

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        return DeltaTable.is_deltatable(self.uri(table), self.storage_options)

    def version(self, table: str) -> int:
        """The newest Delta version of a table."""
        return self.open(table).version()

    def open(self, table: str, version: int | None = None) -> DeltaTable:
        """The table at its newest or a given version.

        Raises:
            InputError: no such table, or no such version any more.
        """
        uri = self.uri(table)
        try:
            return DeltaTable(uri, version=version, storage_options=self.storage_options)
        except TableNotFoundError as error:
            raise InputError("there is no such table", where=uri, hint="create it with Lake.create") from error
        except DeltaError as error:
            if version is None:
                raise
            raise InputError(
                "the table's version cannot be read",
                where=uri,
                found=version,
                hint="read the newest version; old ones end with the retention",
            ) from error

    def create(self, item_type: pl.DataType | type[pl.DataType]) -> None:
        """Create the tables under contract that are not there yet; harmless when run again or twice at once.

        Creation is a serial step because two first writers of a Delta table can both believe to be the first.

        Args:
            item_type: `pl.Int64` or `pl.String`, the type of the shop's item ids.

        Raises:
            InputError: a table is there with another contract, for example another item type.
        """
        for contract in contracts(item_type).values():
            if not self.exists(contract.name):
                self._create(
                    contract.name,
                    contract.delta_schema(),
                    partition_by=list(contract.partition_by),
                    description=contract.description,
                    configuration={CONTRACT_PROPERTY: CONTRACT_VERSION},
                    raise_if_key_not_exists=False,  # the property is ours, not one of Delta's own
                )
            self._check_contract(contract)

    def _create(self, table: str, schema: Any, **options: Any) -> None:
        """Create an empty table; somebody else may be faster."""
        delta_stream.create(self.uri(table), schema, self.storage_options, name=table, **options)

    def _check_contract(self, contract: TableContract) -> None:
        table = self.open(contract.name)
        found = (
            table.schema().to_json(),
            tuple(table.metadata().partition_columns),
            table.metadata().configuration.get(CONTRACT_PROPERTY),
        )
        if found != (contract.delta_schema().to_json(), contract.partition_by, CONTRACT_VERSION):
            columns = {field.name: str(field.type) for field in table.schema().fields}
            raise InputError(
                "the table has another contract",
                where=self.uri(contract.name),
                found={"contract": found[2], "partitions": found[1], "columns": columns},
                hint=f"expected contract {CONTRACT_VERSION} with {dict(contract.polars_schema())}; "
                "use another lake or migrate the table",
            )

    def contract(self, name: str, table: DeltaTable) -> TableContract:
        """The contract of an open table, whose own schema says the item type."""
        types = {field.name: str(getattr(field.type, "type", field.type)) for field in table.schema().fields}
        known = contracts(pl.String if types.get("item_id") == "string" else pl.Int64)
        if name not in known:
            raise InputError("not a table under contract", found=name, hint=f"use one of {', '.join(known)}")
        return known[name]

    def replace_partition(
        self,
        run_date: date,
        pi: str,
        batches: Iterable[pl.DataFrame],
        *,
        model_version: str,
        k: int,
        table: str = "recommendations",
        items: Vocabulary | pl.Series | Iterable[int] | Iterable[str] | None = None,
        expected_lists: int | None = None,
    ) -> PartitionCommit:
        """Replace the partition (run_date, pi) by one streamed commit: all rows, checked, or none.

        Another writer of the same partition is never mixed with this one: the later commit is refused by Delta and
        written again when `batches` can be read again (a list, not a generator), else reported.

        Args:
            run_date: the night's date (UTC).
            pi: the preference's key, "0.00" to "1.00".
            batches: frames `session_id`, `rank` (from 1), `item_id`, `score`, sorted by session_id, then rank; see
                `ranked_lists.checked_lists` for what is checked.
            model_version: the version that gave the scores.
            k: items a list.
            table: another table of ranked lists, with its own key in place of `session_id`.
            items: the items that may occur, for example the model's vocabulary; None leaves them unchecked.
            expected_lists: how many lists must come, when the caller knows.

        Raises:
            InputError: a row breaks the contract; the table is as it was.
            UnavailableError: another writer replaced the same partition meanwhile; its rows stand.
        """
        run_date, pi = checked_date(run_date), pi_key(pi)
        if not isinstance(model_version, str) or not 1 <= len(model_version.encode()) <= 64:
            # Longer texts are cut in the file's statistics, from which the version is told.
            raise InputError(
                "a model version must be a text of 1 to 64 bytes",
                found=model_version,
                hint="name the deployed version",
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
            repeatable=not isinstance(batches, Iterator),  # a generator is spent
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
        """Replace the rows of a table that carry `key` by `rows`, in one commit; made for statistics, metrics, fronts.

        The first call creates the table, partitioned by the key's columns; later calls may bring new columns.

        Args:
            table: the table's name.
            rows: a frame; a lazy one is streamed. Columns of the key may be left out, they are filled in.
            key: partition columns and their values, dates or short texts; None replaces the whole table.

        Raises:
            InputError: a key that contradicts the rows or the table, a type that Delta readers do not share, a column
                that the table has with another type.
            UnavailableError: another writer replaced the same rows meanwhile; its rows stand.
        """
        key = dict(key or {})
        predicate = replace_where.predicate(key)
        schema = replace_where.portable_schema(rows.collect_schema(), key)
        if not self.exists(table):
            self._create(table, delta_stream.arrow_schema(schema), partition_by=list(key))
        schema_mode = replace_where.schema_mode(self.open(table), schema, key)
        count = 0

        def frames() -> Iterator[pl.DataFrame]:
            nonlocal count
            count = 0
            for frame in replace_where.keyed_frames(rows, schema, key):
                count += len(frame)
                yield frame

        start = time.monotonic()
        written = delta_stream.replace(
            lambda: self.open(table),
            frames,
            schema,
            repeatable=True,
            predicate=predicate,
            metadata={name: str(value) for name, value in key.items()},
            schema_mode=schema_mode,
        )
        return RowsCommit(table, count, written.version(), time.monotonic() - start)

    def partitions(self, table: str = "recommendations") -> pl.DataFrame:
        """The partitions that exist, published or not, from the table's log alone, newest first.

        Returns:
            Columns `run_date`, `pi`, `rows`, `files`, `bytes`, `model_version`.
        """
        return partition_files.partitions(self.open(table))

    def publish(
        self, run_date: date | str, pi: str, *, table: str = "recommendations", delta_version: int | None = None
    ) -> Publication:
        """Release a partition to the readers; see `publication.publish`."""
        return publication.publish(self, run_date, pi, table=table, delta_version=delta_version)

    def publish_night(self, run_date: date | str, pi: str, versions: Mapping[str, int | None]) -> list[Publication]:
        """Release the partitions of several tables in one commit; see `publication.publish_night`."""
        return publication.publish_night(self, run_date, pi, versions)

    def publications(self, table: str | None = None) -> pl.DataFrame:
        """What is published, of one table or of all, newest first; see `publication.publications`."""
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
        """The recommendations of one preference and night, sorted by session, then rank.

        Only what is published is read, exactly as it was published: nobody sees a night before it was checked.

        Args:
            pi: the preference's key; leave it out for a channel.
            run_date: a date, its ISO text, or "latest": the latest night published for this preference.
            channel: read what this channel shows: its table, preference, items a list and exclusions.
            session_ids: only these sessions; a point read touches the files and row groups that may have them.
            table: another table of ranked lists; `session_ids` are then values of its own key.
            unpublished: read the rows that stand now, published or not; "latest" is then the newest night written.

        Returns:
            The columns of the table; sessions without recommendations are simply not there.

        Raises:
            InputError: no such night, published or not as asked, or no such channel; names those that exist; or a file
                that was changed behind the table's log.
        """
        if (pi is None) == (channel is None):
            raise InputError(
                "either a preference or a channel is read",
                found={"pi": pi, "channel": channel},
                hint='give one of them, for example pi "0.50"',
            )
        shown = None if channel is None else channels.read_channel(self, channel)
        if shown is not None:
            pi, table = shown["pi"], shown["table_name"]
        pi = pi_key(pi or "")
        asked = None if run_date == "latest" else checked_date(run_date)
        find = self._newest_night if unpublished else partial(publication.published_night, self)
        opened, night = find(table, pi, asked)
        contract = self.contract(table, opened)
        key = contract.list_key or "run_date"
        wanted = [pl.col("run_date") == night, pl.col("pi") == pi]
        if session_ids is not None:
            # A plain list is held against the row groups' statistics, a series is not.
            wanted.append(pl.col(key).is_in(_ids(session_ids, contract.polars_schema()[key])))
        try:
            lists = pl.scan_delta(opened).filter(*wanted).sort(key, "rank").collect()
        except (pl.exceptions.PanicException, pl.exceptions.ComputeError) as error:  # polars trusts the log's sizes
            if "://" in str(self.root) and isinstance(error, pl.exceptions.ComputeError):
                raise  # an object store's errors have this type too, and those may pass
            raise InputError(
                "a file of the table is not what the table's log says: it was changed from outside",
                where=f"{self.uri(table)}, {night}, pi {pi}",
                found=str(error).splitlines()[0],
                hint="score this night and pi again, or restore the table; see the runbook",
            ) from error
        if shown is None:
            return lists
        return channels.as_shown(lists, key, k=shown["k"], exclude_items=shown["exclude_items"])

    def _newest_night(self, table: str, pi: str, run_date: date | None) -> tuple[DeltaTable, date]:
        """The table as it stands and the night to read, published or not."""
        opened = self.open(table)
        there = partition_files.partitions(opened)
        nights = there.filter(pi=pi)["run_date"].to_list()
        if not nights or (run_date is not None and run_date not in nights):
            raise InputError(
                "there is no such partition",
                where=opened.table_uri,
                found={"run_date": "latest" if run_date is None else run_date.isoformat(), "pi": pi},
                hint=f"for pi {pi} there are the nights {', '.join(map(str, nights[:10])) or 'none'}; "
                f"the preferences are {', '.join(there['pi'].unique().sort().to_list()) or 'none'}",
            )
        return opened, run_date or nights[0]


def _ids(values: Iterable[str] | Iterable[int], kind: pl.DataType) -> list[str] | list[int]:
    """The ids as a list, once they are known to be of the column's type."""
    ids = list(values)
    try:
        return pl.Series(ids, dtype=kind).to_list()
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise InputError(
            "ids are of another type than the table's", where="session_ids", found=ids[:5], hint=f"give {kind} values"
        ) from error
