"""Raw files in an object store, against a local S3 server that the test starts."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.events.ingestion import ingest, read_event_log
from multitron_core.events.raw_source import RawSource
from multitron_core.events.read import read_events
from multitron_core.lake.lake import Lake

pytestmark = pytest.mark.slow

DAY = date(2026, 1, 1)
CSV = b"session_id,item_id,ts,event_type\ns,7,2026-01-01T12:00:00Z,click\ns,8,2026-01-01T12:01:00Z,order\n"


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """Storage options of a bucket `shop` with raw files.

    The server runs in a separate process, because polars may hold the interpreter lock.
    """
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip("the object store tests need moto[server]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port}"
        client = import_module("boto3").client(
            "s3", endpoint_url=url, aws_access_key_id="t", aws_secret_access_key="t", region_name="us-east-1"
        )
        client.create_bucket(Bucket="shop")
        client.put_object(Bucket="shop", Key="raw/events-2026-01-01.csv", Body=CSV)
        client.put_object(Bucket="shop", Key="raw/events-2026-01-02.csv.gz", Body=gzip.compress(CSV))
        client.put_object(Bucket="shop", Key="raw/notes.txt", Body=b"not events")
        yield {
            "aws_endpoint_url": url,
            "aws_allow_http": "true",
            "aws_access_key_id": "t",
            "aws_secret_access_key": "t",
            "aws_region": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("location", "files"),
    [
        ("s3://shop/raw", ["events-2026-01-01.csv", "events-2026-01-02.csv.gz"]),
        ("s3://shop/raw/", ["events-2026-01-01.csv", "events-2026-01-02.csv.gz"]),
        ("s3://shop/raw/events-*.csv", ["events-2026-01-01.csv"]),
        ("s3://shop/raw/events-2026-01-02.csv.gz", ["events-2026-01-02.csv.gz"]),
    ],
)
def test_read_events_of_object_files_folders_and_globs(store: dict[str, str], location: str, files: list[str]) -> None:
    events = read_events(location, "table", storage_options=store).events.collect()
    assert events["file"].unique().sort().to_list() == files
    assert events["item_id"].to_list() == [7, 8] * len(files)


def test_read_events_missing_objects_are_errors(store: dict[str, str]) -> None:
    with pytest.raises(InputError, match="no file to read"):
        read_events("s3://shop/nothing", "table", storage_options=store)
    with pytest.raises(UnavailableError, match="cannot be listed"):
        read_events("s3://other/raw", "table", storage_options=store)


def test_ingest_from_and_into_object_store(store: dict[str, str], tmp_path: Path) -> None:
    source = RawSource("s3://shop/raw", "table", files="events-{date}.csv*", storage_options=store)
    for lake in (Lake(tmp_path / "lake"), Lake("s3://shop/lake", {**store, "conditional_put": "etag"})):
        for _ in range(2):
            report = ingest(source, lake, DAY, DAY)
            assert report.counts["accepted"] == {"click": 1, "order": 1}
        assert read_event_log(lake).select("file", "line").collect().rows() == [
            ("events-2026-01-01.csv", 2),
            ("events-2026-01-01.csv", 3),
        ]
    delta = read_events("s3://shop/lake/events", "table", storage_options=store).events.collect()
    assert delta["item_id"].to_list() == [7, 8]
    assert delta["file"].unique().to_list() == ["events.delta"]
    with pytest.raises(UnavailableError, match="2026-01-03"):
        ingest(source, lake, date(2026, 1, 3), date(2026, 1, 3))


def test_read_events_of_parquet_object(store: dict[str, str]) -> None:
    local = read_events("s3://shop/raw/events-2026-01-01.csv", "table", storage_options=store).events.collect()
    local.select("session_id", "item_id", "ts", "event_type").write_parquet(
        "s3://shop/tables/events.parquet", storage_options=store
    )
    again = read_events("s3://shop/tables", "table", storage_options=store).events.collect()
    assert again.drop("file", "line").equals(local.drop("file", "line"))
    assert again.schema == pl.Schema(local.schema)
