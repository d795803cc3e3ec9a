"""`Tables`: names, creation, versions and contracts."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from arro3.core import Table

from multitron_core.errors import InputError
from multitron_core.lake.contracts import table_contracts
from multitron_core.lake.lake import Lake
from multitron_core.lake.tables import Tables


def test_tables_uri_of_a_path_and_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Tables("lake").uri("published") == str(tmp_path / "lake" / "published")
    assert Tables("s3://bucket/shop/").uri("published") == "s3://bucket/shop/published"
    for wrong in ("../elsewhere", "Published", "1st", ""):
        with pytest.raises(InputError, match="not a table name"):
            Tables("lake").uri(wrong)


def test_tables_repr_hides_credentials() -> None:
    assert "secret" not in repr(Lake("s3://bucket", {"AWS_SECRET_ACCESS_KEY": "secret"}))


def test_tables_create_repeatedly(lake: Lake) -> None:
    assert all(lake.exists(name) for name in table_contracts(pl.Int64))
    lake.create(pl.Int64)
    assert {lake.version(name) for name in table_contracts(pl.Int64)} == {0}


def test_tables_create_refuses_another_item_type(lake: Lake) -> None:
    with pytest.raises(InputError, match="another contract"):
        lake.create(pl.String)


def test_tables_create_refuses_another_contract_version(lake: Lake) -> None:
    lake.open("recommendations").alter.set_table_properties({"multitron.contract": "0"}, raise_if_not_exists=False)
    with pytest.raises(InputError, match="another contract"):
        lake.create(pl.Int64)


def test_tables_create_table_keeps_an_existing_one(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    assert not tables.exists("metrics")
    for column in ("first", "second"):
        tables.create_table("metrics", Table.from_arrow(pl.DataFrame({column: [1]})).schema)
    assert tables.exists("metrics")
    assert [field.name for field in tables.open("metrics").schema().fields] == ["first"]


def test_tables_open_refuses_missing_tables_and_versions(lake: Lake) -> None:
    assert lake.open("recommendations", 0).version() == 0
    with pytest.raises(InputError, match=r"no such table.*Lake\.create"):
        lake.open("missing")
    with pytest.raises(InputError, match=r"version cannot be read.*found: 7"):
        lake.open("recommendations", 7)


@pytest.mark.parametrize("item_type", [pl.Int64, pl.String])
def test_tables_contract_has_the_item_type(tmp_path: Path, item_type: type[pl.Int64] | type[pl.String]) -> None:
    tables = Tables(tmp_path)
    tables.create(item_type)
    for name in ("recommendations", "item_recommendations"):
        assert tables.contract(name, tables.open(name)) == table_contracts(item_type)[name]
    with pytest.raises(InputError, match=r"not a table under contract.*item_recommendations"):
        tables.contract("metrics", tables.open("recommendations"))
