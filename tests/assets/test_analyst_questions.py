"""Tests the right answers against pandas, and the questions that no table can answer."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.analyst import tables_of
from assets.analyst_questions import Kind, analyst_questions, questions
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import TableStorage, open_tables
from tests.conftest import DAYS

QUESTIONS = dg.AssetKey("analyst_questions")

LATE_MINUTES = 15

Rows = Mapping[str, Mapping[str, Any]]


@pytest.fixture
def data(tmp_path: Path, two_days: Path) -> Path:
    """A copy of the tables, that a test may change."""
    return shutil.copytree(two_days, tmp_path / "data")


def materialise(data: Path, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    storage = TableStorage(base=str(data))
    return dg.materialize(
        [analyst_questions], resources={"tables": storage}, instance=instance, raise_on_error=False
    )


def stored(data: Path) -> Rows:
    """The questions, by their ids."""
    rows = open_tables(str(data)).read(QUESTIONS).set_index("id").to_dict("index")
    return {
        str(key): {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for key, row in rows.items()
    }


def data_version(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.asset_materializations_for_node("analyst_questions")
    assert event.tags is not None
    return event.tags["dagster/data_version"]


@pytest.fixture(scope="module")
def frames(two_days: Path) -> dict[str, pd.DataFrame]:
    tables = open_tables(str(two_days))
    reference = {name: tables.read(dg.AssetKey(name)) for name in ("airlines", "planes", "weather")}
    return {"flights": tables.read(dg.AssetKey("flights"), DAYS), **reference}


@pytest.fixture(scope="module")
def expected(two_days: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The questions of the two days."""
    data = tmp_path_factory.mktemp("questions") / "data"
    shutil.copytree(two_days, data)
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialise(data, instance).success
    return stored(data)


def biggest_carrier(frames: dict[str, pd.DataFrame]) -> str:
    return str(frames["flights"]["carrier"].value_counts().idxmax())


def manufacturer(frames: dict[str, pd.DataFrame]) -> str:
    flown = frames["flights"].merge(frames["planes"], on="tailnum")
    return str(flown["manufacturer"].value_counts().idxmax())


def in_rain(frames: dict[str, pd.DataFrame]) -> int:
    hours = frames["weather"].loc[frames["weather"]["precip"] > 0, ["origin", "time_hour"]]
    return len(frames["flights"].merge(hours, on=["origin", "time_hour"]))


def late_share(frames: dict[str, pd.DataFrame]) -> float:
    arrived = frames["flights"]["arr_delay"].dropna()
    return float(100 * (arrived >= LATE_MINUTES).mean())


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("flights", lambda frames: len(frames["flights"])),
        ("first_day", lambda frames: int((frames["flights"]["date"] == DAYS[0]).sum())),
        (
            "last_day_cancelled",
            lambda frames: int(
                frames["flights"].loc[frames["flights"]["date"] == DAYS[-1], "dep_time"].isna().sum()
            ),
        ),
        ("longest_delay", lambda frames: int(frames["flights"]["dep_delay"].max())),
        ("aircraft", lambda frames: frames["flights"].dropna(subset="dep_time")["tailnum"].nunique()),
        ("late_share", late_share),
        ("in_rain", in_rain),
        ("strongest_wind", lambda frames: float(frames["weather"]["wind_speed"].max())),
    ],
)
def test_a_number_equals_the_result_of_pandas(
    question: str,
    found: Callable[[dict[str, pd.DataFrame]], float],
    expected: Rows,
    frames: dict[str, pd.DataFrame],
) -> None:
    row = expected[question]
    decimals = int(row["decimals"])
    assert row["kind"] == Kind.NUMBER.value
    assert float(row["expected"]) == pytest.approx(found(frames), abs=0.5 * 10**-decimals)


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("biggest_carrier", biggest_carrier),
        (
            "biggest_carrier_name",
            lambda frames: frames["airlines"].set_index("carrier")["name"][biggest_carrier(frames)],
        ),
        ("busiest_airport", lambda frames: frames["flights"]["origin"].value_counts().idxmax()),
        (
            "farthest_destination",
            lambda frames: frames["flights"].set_index("distance")["dest"].loc[4983].iat[0],
        ),
        ("manufacturer", manufacturer),
    ],
)
def test_a_text_equals_the_result_of_pandas(
    question: str,
    found: Callable[[dict[str, pd.DataFrame]], str],
    expected: Rows,
    frames: dict[str, pd.DataFrame],
) -> None:
    row = expected[question]
    assert row["kind"] == Kind.TEXT.value
    assert row["expected"] == found(frames)


def test_every_question_has_a_right_answer_or_is_marked_unanswerable(expected: Rows) -> None:
    assert list(expected) == [question.id for question in questions()]
    unanswerable = {key for key, row in expected.items() if row["kind"] == Kind.UNANSWERABLE.value}
    assert len(unanswerable) == 6
    for key, row in expected.items():
        found = [row[name] is not None for name in ("expected", "sql")]
        assert found == [key not in unanswerable] * 2
        assert (row["decimals"] is not None) == (row["kind"] == Kind.NUMBER.value)
        assert not set("{}") & set(row["question"])


def test_questions_about_tables_that_are_not_stored_are_left_out(
    data: Path, instance: dg.DagsterInstance
) -> None:
    for name in ("airlines", "weather"):
        data.joinpath(f"{name}.parquet").unlink()
    result = materialise(data, instance)
    left_out = {question.id for question in questions()} - set(stored(data))
    assert left_out == {"biggest_carrier_name", "strongest_wind", "in_rain"}
    (event,) = result.asset_materializations_for_node("analyst_questions")
    counts = {kind: event.metadata[f"{kind.value}s"].value for kind in Kind}
    assert sum(int(str(count)) for count in counts.values()) == len(questions()) - 3


def test_the_same_days_have_the_same_data_version_and_other_days_another(
    data: Path, instance: dg.DagsterInstance
) -> None:
    first, again = (data_version(materialise(data, instance)) for _ in range(2))
    data.joinpath("flights", f"{DAYS[-1]}.parquet").unlink()
    fewer = data_version(materialise(data, instance))
    assert first == again
    assert fewer != first
    assert stored(data)["first_day"]["question"] == f"How many flights were scheduled on {DAYS[0]}?"
    assert DAYS[0] in stored(data)["last_day_cancelled"]["question"]


def test_questions_that_a_few_days_cannot_answer_have_no_right_answer(
    data: Path, instance: dg.DagsterInstance
) -> None:
    data.joinpath("flights", f"{DAYS[0]}.parquet").unlink()
    assert materialise(data, instance).success
    carriers = open_tables(str(data)).read(dg.AssetKey("flights"), DAYS[-1:]).dropna(subset="arr_delay")
    assert carriers["carrier"].value_counts().max() < 100
    row = stored(data)["most_delayed_carrier"]
    assert (row["kind"], row["expected"]) == (Kind.TEXT.value, None)


def test_without_flights_the_step_fails_without_a_second_attempt(
    data: Path, instance: dg.DagsterInstance
) -> None:
    shutil.rmtree(data / "flights")
    result = materialise(data, instance)
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    failure = result.failure_data_for_node("analyst_questions")
    assert failure is not None
    assert "No flights are stored" in str(failure.error)
    assert "ledgerline run" in str(failure.error)


def test_the_analyst_can_query_stored_tables_only(data: Path) -> None:
    Path(data, "secrets.parquet").write_bytes(b"not a table")
    data.joinpath("planes.parquet").unlink()
    tables = tables_of(open_tables(str(data)))
    assert [table.name for table in tables] == ["flights", "weather", "airports", "airlines"]
    assert all(column.description for table in tables for column in table.columns)


def test_without_flights_the_analyst_has_no_tables(tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match="No flights are stored"):
        tables_of(open_tables(str(tmp_path)))
