"""Tests tables and records on an object store: a fake, moto's S3 server on this machine."""

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

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import RecordStorage, TableStorage, open_records, open_tables

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

    assert f"the file {fake_s3}/flights/2013-01-02.parquet does not exist" in failure.value.problem


def test_a_missing_bucket_is_named(fake_s3: str):
    with pytest.raises(PermanentFailure, match=r"s3://no-such-bucket/flights/2013-01-01.parquet"):
        open_tables("s3://no-such-bucket").read(FLIGHTS, RANGE)


def test_records_are_written_to_and_read_from_an_object_store(fake_s3: str):
    assert materialise(fake_s3, [count, count_again]).success

    assert open_records(fake_s3).read(dg.AssetKey("count_again"), None, Count) == Count(rows=3)


ODD_KEYS = ["a/x", "b/x", "../../x", "?versionId=1", "*[a]#&+%2F", "a b ", "Zürich", "long" * 300, "a|x"]
ODD = dg.StaticPartitionsDefinition(ODD_KEYS)


@dg.asset(
    partitions_def=ODD,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"partition_expr": "key"},
)
def odd(context: dg.AssetExecutionContext) -> Any:
    return pd.DataFrame({"key": context.partition_keys})


@dg.asset(key=["odd", "x"], io_manager_key="tables")
def odd_x() -> Any:
    return pd.DataFrame({"key": ["no partition"]})


def test_odd_keys_are_separate_objects_below_the_base(fake_s3: str):
    tags = {
        "dagster/asset_partition_range_start": ODD_KEYS[0],
        "dagster/asset_partition_range_end": ODD_KEYS[-1],
    }
    assert materialise(fake_s3, [odd], tags=tags).success
    assert materialise(fake_s3, [odd_x]).success

    tables = open_tables(fake_s3)
    assert tables.stored_partitions(odd.key) == sorted(ODD_KEYS)
    assert [tables.read(odd.key, [key])["key"].tolist() for key in ODD_KEYS] == [[key] for key in ODD_KEYS]
    assert tables.read(odd_x.key)["key"].tolist() == ["no partition"]
    objects = [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert len(objects) == len(ODD_KEYS) + 1
    assert all(name.startswith("tables/odd/") for name in objects)


def test_files_of_another_process_are_listed(fake_s3: str):
    tables = open_tables(fake_s3)
    materialise(fake_s3, [flights], partition_key=RANGE[0])
    assert tables.stored_partitions(FLIGHTS) == RANGE[:1]

    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"tables/flights/{RANGE[1]}.parquet", Body=b"")

    assert tables.stored_partitions(FLIGHTS) == RANGE


def test_a_bucket_that_cannot_be_written_is_named_and_not_tried_again(fake_s3: str):
    result = materialise("s3://no-such-bucket", [flights], tags=RANGE_TAGS, raise_on_error=False)

    failure = result.failure_data_for_node("flights")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description is not None
    assert failure.user_failure_data.description.startswith("s3://no-such-bucket/flights cannot be written: ")
    assert "unchanged" not in failure.user_failure_data.description
