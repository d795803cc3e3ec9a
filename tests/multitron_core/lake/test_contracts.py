"""The contract of the tables: as it was announced, and as the tables really are."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError
from multitron_core.lake.contracts import CONTRACT_VERSION, table_contracts
from multitron_core.lake.lake import Lake

ANNOUNCED = Path(__file__).parent / "contracts"


def promised(item_type) -> dict:
    """The contract as plain data."""
    return json.loads(json.dumps({name: asdict(contract) for name, contract in table_contracts(item_type).items()}))


@pytest.mark.parametrize("item_type", [pl.Int64, pl.String])
def test_the_contract_is_the_announced_one(item_type):
    announced = json.loads((ANNOUNCED / f"version_{CONTRACT_VERSION}.json").read_text())
    assert promised(item_type) == announced[str(item_type())], (
        "the contract of the tables has changed: raise CONTRACT_VERSION, add the announced version beside the old "
        "ones in tests/multitron_core/contracts, and tell the readers in the CHANGELOG"
    )


@pytest.mark.parametrize("item_type", [pl.Int64, pl.String])
def test_the_tables_are_what_the_contract_says(tmp_path, item_type):
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


def test_writing_does_not_change_the_contract(tmp_path):
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    rows = pl.DataFrame({"session_id": ["a"], "rank": [1], "item_id": [1], "score": [1.0]})
    lake.replace_partition(date(2026, 1, 31), "0.50", [rows], model_version="7", k=1)
    lake.publish(date(2026, 1, 31), "0.50")
    lake.create(pl.Int64)  # refuses another contract
    assert pl.read_delta(lake.uri("recommendations")).columns == list(
        table_contracts(pl.Int64)["recommendations"].polars_schema()
    )


def test_a_null_is_refused_by_delta_itself(tmp_path):
    """NOT NULL holds for writers that are not ours, too."""
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    schema = table_contracts(pl.Int64)["recommendations"].polars_schema()
    foreign = pl.DataFrame({name: [None] for name in schema}, schema=schema).with_columns(
        run_date=date(2026, 1, 31), pi=pl.lit("0.50")
    )
    with pytest.raises(Exception, match=r"failed validation check"):
        foreign.write_delta(lake.uri("recommendations"), mode="append")
    assert lake.partitions().is_empty()


def test_a_table_of_an_older_contract_is_not_written_to_unawares(tmp_path):
    lake = Lake(tmp_path)
    lake.create(pl.Int64)
    lake.open("recommendations").alter.set_table_properties({"multitron.contract": "0"}, raise_if_not_exists=False)
    with pytest.raises(InputError, match="another contract"):
        lake.create(pl.Int64)


def test_items_are_numbers_or_text():
    with pytest.raises(InputError, match="Int64 or String"):
        table_contracts(pl.Int32)
