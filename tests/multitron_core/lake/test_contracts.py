"""Contracts: equal to the announced version, and equal to the tables that are created."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.contracts import CONTRACT_VERSION, table_contracts
from multitron_core.lake.lake import Lake

ItemType: TypeAlias = type[pl.Int64] | type[pl.String]
ANNOUNCED = Path(__file__).parent / "contracts"


def as_plain_data(item_type: ItemType) -> dict[str, Any]:
    """The contracts as JSON stores them."""
    return json.loads(json.dumps({name: asdict(contract) for name, contract in table_contracts(item_type).items()}))


@pytest.mark.parametrize("item_type", [pl.Int64, pl.String])
def test_table_contracts_equal_the_announced_version(item_type: ItemType) -> None:
    announced = json.loads((ANNOUNCED / f"version_{CONTRACT_VERSION}.json").read_text())
    assert as_plain_data(item_type) == announced[str(item_type())], (
        "the contract of the tables has changed: raise CONTRACT_VERSION, add a file for the new version to "
        "tests/multitron_core/lake/contracts, and announce the change in the CHANGELOG"
    )


@pytest.mark.parametrize("item_type", [pl.Int64, pl.String])
def test_table_contracts_equal_the_created_tables(tmp_path: Path, item_type: ItemType) -> None:
    lake = Lake(tmp_path)
    lake.create(item_type)
    for name, contract in table_contracts(item_type).items():
        table = lake.open(name)
        assert table.metadata().name == name
        assert table.metadata().description == contract.description
        assert table.metadata().configuration["multitron.contract"] == CONTRACT_VERSION
        assert table.metadata().partition_columns == list(contract.partition_by)
        fields = table.schema().fields
        assert [(field.name, field.metadata["comment"]) for field in fields] == [
            (column.name, column.comment) for column in contract.columns
        ]
        assert not any(field.nullable for field in fields)
        assert pl.scan_delta(table).collect_schema() == contract.polars_schema()


def test_table_contracts_hold_after_writes(lake: Lake) -> None:
    rows = pl.DataFrame({"session_id": ["a"], "rank": [1], "item_id": [1], "score": [1.0]})
    lake.replace_partition(date(2026, 1, 31), "0.50", [rows], model_version="7", k=1)
    lake.publish(date(2026, 1, 31), "0.50")
    lake.create(pl.Int64)  # raises if the contract has changed
    assert pl.read_delta(lake.uri("recommendations")).columns == list(
        table_contracts(pl.Int64)["recommendations"].polars_schema()
    )


def test_table_contracts_forbid_nulls_to_other_writers(lake: Lake) -> None:
    """Delta enforces NOT NULL for writers outside this project, too."""
    schema = table_contracts(pl.Int64)["recommendations"].polars_schema()
    foreign = pl.DataFrame({name: [None] for name in schema}, schema=schema).with_columns(
        run_date=date(2026, 1, 31), pi=pl.lit("0.50")
    )
    with pytest.raises(Exception, match=r"failed validation check"):
        foreign.write_delta(lake.uri("recommendations"), mode="append")
    assert lake.partitions().is_empty()


def test_table_contracts_refuse_other_item_types() -> None:
    with pytest.raises(InputError, match="Int64 or String"):
        table_contracts(pl.Int32)
