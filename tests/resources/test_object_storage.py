"""Tables and records on an object store. The store is a fake: moto's S3 server on this machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import boto3
import dagster as dg
import pandas as pd
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from resources.failures import PermanentFailure
from resources.storage import RecordStorage, TableStorage, open_records, open_tables

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
RANGE = ["2013-01-01", "2013-01-02"]
RANGE_TAGS = {
    "dagster/asset_partition_range_start": RANGE[0],
    "dagster/asset_partition_range_end": RANGE[-1],
}
SCHEMA = dg.TableSchema([dg.TableColumn("date", "string"), dg.TableColumn("flight", "int16")])
FLIGHTS = dg.AssetKey("flights")
BUCKET = "ledgerline-test"


@dataclass(frozen=True)
class Count:
    """A small result."""

    rows: int


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"dagster/column_schema": SCHEMA, "partition_expr": "date"},
)
def flights(context: dg.AssetExecutionContext) -> Any:
    return pd.DataFrame({"date": context.partition_keys, "flight": range(len(context.partition_keys))})


@dg.asset(io_manager_key="records")
def count() -> Count:
    return Count(rows=2)


@dg.asset(io_manager_key="records")
def count_again(count: Count) -> Count:
    return Count(rows=count.rows + 1)


@pytest.fixture
def fake_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty folder in a fake S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fake")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/tables"
    finally:
        reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urlopen(reset).close()
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def materialise(base: str, asset: Any, **options: Any) -> dg.ExecuteInProcessResult:
    resources = {"tables": TableStorage(base=base), "records": RecordStorage(base=base)}
    return dg.materialize(asset, resources=resources, **options)


def test_tables_are_written_to_and_read_from_an_object_store(fake_s3: str):
    result = materialise(fake_s3, [flights], tags=RANGE_TAGS)

    assert result.success
    tables = open_tables(fake_s3)
    assert tables.stored_partitions(FLIGHTS) == RANGE
    assert tables.read(FLIGHTS, RANGE, SCHEMA)["flight"].tolist() == [0, 1]
    reported = {
        event.partition: event.materialization.metadata["path"].value
        for event in result.get_asset_materialization_events()
    }
    assert reported == {key: f"{fake_s3}/flights/{key}.parquet" for key in RANGE}


def test_a_table_on_an_object_store_is_replaced(fake_s3: str):
    materialise(fake_s3, [flights], tags=RANGE_TAGS)
    materialise(fake_s3, [flights], partition_key=RANGE[1])

    assert open_tables(fake_s3).read(FLIGHTS, RANGE)["flight"].tolist() == [0, 0]


def test_a_missing_object_is_named(fake_s3: str):
    materialise(fake_s3, [flights], partition_key=RANGE[0])

    with pytest.raises(PermanentFailure) as failure:
        open_tables(fake_s3).read(FLIGHTS, RANGE)

    assert f"there is no file {fake_s3}/flights/2013-01-02.parquet" in failure.value.problem


def test_a_missing_bucket_is_named(fake_s3: str):
    with pytest.raises(PermanentFailure, match=r"s3://no-such-bucket/flights/2013-01-01.parquet"):
        open_tables("s3://no-such-bucket").read(FLIGHTS, RANGE)


def test_records_are_written_to_and_read_from_an_object_store(fake_s3: str):
    assert materialise(fake_s3, [count, count_again]).success

    assert open_records(fake_s3).read(dg.AssetKey("count_again"), None, Count) == Count(rows=3)
