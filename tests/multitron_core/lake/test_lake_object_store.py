"""The lake in an object store: the same guarantees over S3, with a local server."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import date
from importlib import import_module
from importlib.util import find_spec

import polars as pl
import pytest

from multitron_core.errors import InputError, UnavailableError
from multitron_core.lake.channels import Channel, publish_channels
from multitron_core.lake.housekeeping import apply_retention
from multitron_core.lake.lake import Lake, PartitionCommit
from multitron_core.lake.night_comparison import compare_nights

pytestmark = pytest.mark.slow
MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)
K = 2


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server in another process, since deltalake may hold the interpreter lock while it waits."""
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
            assert time.monotonic() < deadline, "the S3 server does not respond"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def lake(server: str, request: pytest.FixtureRequest) -> Lake:
    """A lake in a new bucket."""
    boto3 = import_module("boto3")  # a dependency of moto
    access = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    bucket = f"lake-{request.node.name.translate(str.maketrans('_[].', '----')).strip('-')[:50]}"
    boto3.client("s3", endpoint_url=server, **access).create_bucket(Bucket=bucket)
    lake = Lake(
        f"s3://{bucket}/shop/",
        storage_options={
            "AWS_ENDPOINT_URL": server,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        },
    )
    lake.create(pl.Int64)
    return lake


def lists(score: float, sessions: int = 50) -> pl.DataFrame:
    """Lists of K items with the same score."""
    rows = [(f"s{session:04d}", rank, rank, score) for session in range(sessions) for rank in range(1, K + 1)]
    return pl.DataFrame(rows, schema=["session_id", "rank", "item_id", "score"], orient="row")


def write(lake: Lake, night: date, batches: Iterable[pl.DataFrame], pi: str = "0.50") -> PartitionCommit:
    """Write a partition."""
    return lake.replace_partition(night, pi, batches, model_version="7", k=K)


def test_lake_end_to_end_over_s3(lake: Lake) -> None:
    lake.create(pl.Int64)
    write(lake, MONDAY, [lists(1.0)])
    lake.publish(MONDAY, "0.50")
    write(lake, TUESDAY, [lists(2.0)])
    assert lake.read_recommendations("0.50")["score"].unique().to_list() == [1.0]
    assert compare_nights(lake, TUESDAY, "0.50").overlap == 1.0
    lake.publish(TUESDAY, "0.50")
    some = lake.read_recommendations("0.50", session_ids=["s0007"])
    assert some.select("session_id", "rank", "score").rows() == [("s0007", 1, 2.0), ("s0007", 2, 2.0)]
    publish_channels(lake, [Channel("newsletter", "crm", pi="0.50", k=1)])
    assert len(lake.read_recommendations(channel="newsletter")) == 50
    lake.replace_rows("metrics", pl.DataFrame({"loss": [0.5]}), key={"model_version": "7"})
    report = {report.table: report for report in apply_retention(lake, days=1, today=TUESDAY)}["recommendations"]
    assert report.deleted_nights == (MONDAY,)
    assert lake.partitions()["run_date"].to_list() == [TUESDAY]


def test_replace_partition_refuses_a_wrong_row(lake: Lake) -> None:
    write(lake, MONDAY, [lists(1.0)])
    with pytest.raises(InputError, match="finite"):
        write(lake, MONDAY, [lists(2.0), lists(float("nan")).with_columns(session_id="t" + pl.col("session_id"))])
    assert lake.read_recommendations("0.50", unpublished=True)["score"].unique().to_list() == [1.0]


@pytest.mark.parametrize("preferences", [("0.50", "0.50"), ("0.00", "1.00")])
def test_replace_partition_of_concurrent_writers(lake: Lake, preferences: tuple[str, str]) -> None:
    barrier = threading.Barrier(2)
    results: list[object] = []

    def batches(score: float) -> Iterator[pl.DataFrame]:
        barrier.wait(30)
        yield lists(score)

    def attempt(pi: str, score: float) -> None:
        try:
            results.append(write(lake, MONDAY, batches(score), pi))
        except UnavailableError as error:
            results.append(error)

    threads = [threading.Thread(target=attempt, args=(pi, n + 1.0)) for n, pi in enumerate(preferences)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lost = sum(isinstance(result, UnavailableError) for result in results)
    assert lost == (1 if len(set(preferences)) == 1 else 0)
    for pi in set(preferences):
        read = lake.read_recommendations(pi, unpublished=True)
        assert len(read) == 100
        assert read["score"].n_unique() == 1
