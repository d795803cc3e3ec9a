"""Real runs of a night over a shop whose raw files and tables are in an object store, with options by environment."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.multitron_core.lake.test_lake_object_store import server  # noqa: F401  (a fixture)
from tests.orchestration.conftest import DAYS, ITEMS, SESSIONS, K, ShopInTest, copied_shop

pytestmark = pytest.mark.slow
ACCESS = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}


def test_tables_and_raw_files_may_be_on_s3(
    server: str,  # noqa: F811
    deployed_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boto3 = import_module("boto3")  # comes with moto
    client = boto3.client(
        "s3",
        endpoint_url=server,
        region_name="us-east-1",
        **{f"aws_{name.lower()}": value for name, value in ACCESS.items()},
    )
    client.create_bucket(Bucket="nightly")
    for name, value in {**ACCESS, "REGION": "us-east-1", "ENDPOINT_URL": server, "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"MULTITRON_STORAGE_AWS_{name}", value)
    with copied_shop(deployed_home, tmp_path / "shop") as shop:
        for file in (tmp_path / "shop" / "raw").iterdir():
            client.put_object(Bucket="nightly", Key=f"raw/{file.name}", Body=file.read_bytes())
            file.unlink()
        shop.change(
            source={"path": "s3://nightly/raw", "format": "table", "files": "events-{date}.csv"},
            tables={"root": "s3://nightly/shop", "keep_days": 1},
            scoring={"pi": ["0.50"], "k": K},
        )
        shop.ingest()
        night_over_s3(shop)
    assert not (tmp_path / "shop" / "lake").exists()
    listed = client.list_objects_v2(Bucket="nightly", Prefix="shop/recommendations/_delta_log/")
    assert listed["KeyCount"] > 0


def night_over_s3(shop: ShopInTest) -> None:
    first, second, third = DAYS
    assert shop.score(first, "0.50").success
    assert not shop.score(second, "0.50").success, "half of its sessions are missing"
    assert shop.score(third, "0.50").success
    assert shop.run("night_completion", str(third)).success
    assert shop.run("housekeeping_of_tables").success
    assert shop.lake.partitions()["run_date"].to_list() == [third]
    rows = shop.lake.read_recommendations(channel="newsletter")
    assert rows["run_date"].unique().to_list() == [third]
    assert rows.height == 3 * SESSIONS[2]
    assert shop.lake.read_recommendations("0.50", table="item_recommendations").height == K * ITEMS
