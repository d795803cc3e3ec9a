"""Access to the Delta tables of a shop by name: address, existence, versions, creation, contracts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from multitron_core.errors import InputError
from multitron_core.lake import delta_stream
from multitron_core.lake.contracts import CONTRACT_PROPERTY, CONTRACT_VERSION, TableContract, table_contracts

_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Tables:
    """The Delta tables below one folder or object store prefix.

    Args:
        root: A path, or an address such as `s3://bucket/prefix`.
        storage_options: Credentials and settings of the object store, as deltalake takes them.
    """

    root: str | Path
    storage_options: dict[str, str] | None = field(default=None, repr=False)  # contains secrets

    def uri(self, table: str) -> str:
        """Path or address of a table, whether or not it exists.

        Raises:
            InputError: `table` is not a table name (lower case letters, digits, underscores).
        """
        if not _TABLE_NAME.fullmatch(table):
            raise InputError("not a table name", found=table, hint="use lower case letters, digits and underscores")
        root = str(self.root)
        return f"{root.rstrip('/')}/{table}" if "://" in root else str(Path(root).absolute() / table)

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        return DeltaTable.is_deltatable(self.uri(table), self.storage_options)

    def version(self, table: str) -> int:
        """Newest Delta version of a table."""
        return self.open(table).version()

    def open(self, table: str, version: int | None = None) -> DeltaTable:
        """Open a table.

        Args:
            table: Name of the table.
            version: Delta version to open; None for the newest.

        Raises:
            InputError: The table does not exist, or the version has expired or never existed.
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
                hint="read the newest version; older versions expire with the retention",
            ) from error

    def create(self, item_type: pl.DataType | type[pl.DataType]) -> None:
        """Create the missing ones of the tables under contract and check the others.

        Repeated and concurrent calls are safe. Call it once before any process writes: two processes that write the
        first rows of a missing table could both create it.

        Args:
            item_type: `pl.Int64` or `pl.String`, the type of the shop's item ids.

        Raises:
            InputError: A table exists with a different contract, for example a different item type.
        """
        for contract in table_contracts(item_type).values():
            if not self.exists(contract.name):
                self.create_table(
                    contract.name,
                    contract.delta_schema(),
                    partition_by=list(contract.partition_by),
                    description=contract.description,
                    configuration={CONTRACT_PROPERTY: CONTRACT_VERSION},
                    raise_if_key_not_exists=False,  # the property is specific to this project
                )
            self._check_contract(contract)

    def create_table(self, table: str, schema: Any, **options: Any) -> None:
        """Create an empty table; harmless if it exists or another process creates it at the same time.

        Args:
            table: Name of the table.
            schema: Arrow or Delta schema.
            options: Further arguments of `DeltaTable.create`.
        """
        delta_stream.create(self.uri(table), schema, self.storage_options, name=table, **options)

    def _check_contract(self, contract: TableContract) -> None:
        """Raise an InputError if a table differs from its contract."""
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
        """The contract of an open table, with the item type of its schema.

        Raises:
            InputError: `name` is not a table under contract.
        """
        types = {field.name: str(getattr(field.type, "type", field.type)) for field in table.schema().fields}
        known = table_contracts(pl.String if types.get("item_id") == "string" else pl.Int64)
        if name not in known:
            raise InputError("not a table under contract", found=name, hint=f"use one of {', '.join(known)}")
        return known[name]
