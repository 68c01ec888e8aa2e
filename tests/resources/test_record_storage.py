"""Tests records as assets write and read them: small results as JSON, damaged ones refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import RecordStorage, open_records

MONTHS = dg.MonthlyPartitionsDefinition("2013-01-01", end_date="2014-01-01")
RETRY = dg.RetryPolicy(max_retries=2)
MONTH = "2013-07-01"
MODEL = dg.AssetKey("model")


@dataclass(frozen=True)
class Model:
    """The result of a step."""

    month: str
    rows: int
    late_rate: float
    rates: dict[str, float]


class Learned(dg.Config):
    late_rate: float = 0.25


@dg.asset(partitions_def=MONTHS, io_manager_key="records")
def model(context: dg.AssetExecutionContext, config: Learned) -> Model:
    return Model(
        month=context.partition_key, rows=3, late_rate=config.late_rate, rates={"AA 17": 0.5, "UA 9": 0.1}
    )


@dg.asset(partitions_def=MONTHS, io_manager_key="records", retry_policy=RETRY)
def evaluated(model: Model) -> Model:
    return model


def materialise(
    base: Path, assets: Sequence[dg.AssetsDefinition], late_rate: float = 0.25
) -> dg.ExecuteInProcessResult:
    configured = {"model": {"config": {"late_rate": late_rate}}} if model in assets else {}
    return dg.materialize(
        [model, evaluated],
        selection=assets,
        resources={"records": RecordStorage(base=str(base))},
        partition_key=MONTH,
        run_config={"ops": configured},
        raise_on_error=False,
    )


def test_a_record_is_read_unchanged(tmp_path: Path):
    result = materialise(tmp_path, [model, evaluated])

    assert result.success
    written = result.output_for_node("model")
    assert result.output_for_node("evaluated") == written
    assert open_records(str(tmp_path)).read(MODEL, MONTH, Model) == written
    assert (tmp_path / "evaluated" / f"{MONTH}.json").read_bytes() == (
        tmp_path / "model" / f"{MONTH}.json"
    ).read_bytes()


def test_a_record_is_json_that_a_person_can_read(tmp_path: Path):
    materialise(tmp_path, [model])

    assert (tmp_path / "model" / f"{MONTH}.json").read_text().splitlines()[:3] == [
        "{",
        '  "month": "2013-07-01",',
        '  "rows": 3,',
    ]


def test_a_number_that_json_does_not_have_is_refused_and_leaves_the_old_record(tmp_path: Path):
    materialise(tmp_path, [model])

    assert not materialise(tmp_path, [model], late_rate=float("nan")).success
    assert open_records(str(tmp_path)).read(MODEL, MONTH, Model).late_rate == 0.25


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b'{"month": "2013-07',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b'{"month": "2013-07-01"}',
        b'{"month": "2013-07-01", "rows": 3, "late_rate": 0.25, "rates": {}, "colour": "red"}',
    ],
    ids=["empty", "cut off", "not text", "a list", "nothing", "a field less", "a field more"],
)
def test_a_damaged_record_is_refused_and_named(tmp_path: Path, damaged: bytes):
    file = tmp_path / "model" / f"{MONTH}.json"
    file.parent.mkdir()
    file.write_bytes(damaged)

    with pytest.raises(PermanentFailure) as failure:
        open_records(str(tmp_path)).read(MODEL, MONTH, Model)

    assert failure.value.problem.startswith(f"{file} is not a Model: ")


def test_a_damaged_record_stops_the_step_at_once(tmp_path: Path):
    materialise(tmp_path, [model])
    file = tmp_path / "model" / f"{MONTH}.json"
    file.write_bytes(file.read_bytes()[:20])

    result = materialise(tmp_path, [evaluated])

    assert not result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    failed = result.failure_data_for_node("evaluated")
    assert failed is not None
    assert failed.error is not None
    assert f"{file} is not a Model" in failed.error.to_string()


def test_a_record_that_was_never_written_is_named(tmp_path: Path):
    with pytest.raises(PermanentFailure, match=f"model {MONTH} is not stored: the file {tmp_path}/model"):
        open_records(str(tmp_path)).read(MODEL, MONTH, Model)
