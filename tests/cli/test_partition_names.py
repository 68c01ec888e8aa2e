"""Days and months as a person types them, and what is said to one who mistypes."""

import pytest

from cli.partition_names import UnknownPartitionError, batches, day, month


@pytest.mark.parametrize("text", ["2013-02", "2013-02-01"])
def test_a_month_is_named_with_or_without_its_first_day(text: str) -> None:
    assert month(text) == "2013-02-01"


@pytest.mark.parametrize("text", ["2013-01", "2014-01", "2013-02-15", "2013-2", "July", ""])
def test_a_month_nobody_can_be_judged_on_is_refused_with_those_that_can(text: str) -> None:
    with pytest.raises(UnknownPartitionError) as caught:
        month(text)
    assert str(caught.value).startswith(f"{text!r} is not a month a model can be judged on: ")
    assert "choose one from 2013-02 to 2013-12" in str(caught.value)


def test_a_day_is_its_own_name() -> None:
    assert [day(text) for text in ("2013-01-01", "2013-12-31")] == ["2013-01-01", "2013-12-31"]


@pytest.mark.parametrize("text", ["2014-01-01", "2013-02-29", "2013-07", "yesterday"])
def test_a_day_without_flights_is_refused_with_those_that_have_some(text: str) -> None:
    with pytest.raises(UnknownPartitionError) as caught:
        day(text)
    assert str(caught.value) == (
        f"{text!r} is not a day with flights: choose one from 2013-01-01 to 2013-12-31."
    )


@pytest.mark.parametrize("job_name", ["ingest_flights", "score_flights", "replay_day"])
def test_days_are_one_run(job_name: str) -> None:
    assert batches(job_name, "2013-01-31", "2013-02-02") == [["2013-01-31", "2013-02-01", "2013-02-02"]]


def test_months_are_a_run_each() -> None:
    assert batches("train_delay_model", "2013-11", "2013-12") == [["2013-11-01"], ["2013-12-01"]]


def test_the_whole_year_is_one_range() -> None:
    (year,) = batches("ingest_flights", "2013-01-01", "2013-12-31")
    assert len(year) == 365


def test_a_single_day_is_a_range_too() -> None:
    assert batches("score_flights", "2013-07-31", "2013-07-31") == [["2013-07-31"]]


@pytest.mark.parametrize("job", ["train", "promote_flight_delay"])
def test_a_job_without_days_or_months_is_refused_with_those_there_are(job: str) -> None:
    with pytest.raises(UnknownPartitionError) as caught:
        batches(job, "2013-02", "2013-03")
    assert str(caught.value) == (
        f"{job!r} is not a job over days or months: choose one of ingest_flights, train_delay_model, "
        "score_flights, watch_predictions, replay_day."
    )


@pytest.mark.parametrize(
    ("job_name", "first", "last"),
    [
        ("ingest_flights", "2013-02", "2013-03"),
        ("ingest_flights", "2013-02-01", "2013-02-30"),
        ("train_delay_model", "2013-02-02", "2013-03"),
        ("train_delay_model", "2013-02", "2014-03"),
    ],
)
def test_both_ends_of_a_range_must_be_partitions_of_the_job(job_name: str, first: str, last: str) -> None:
    with pytest.raises(UnknownPartitionError, match="choose one from 2013-0"):
        batches(job_name, first, last)


@pytest.mark.parametrize(
    ("job_name", "first", "last"),
    [("ingest_flights", "2013-02-02", "2013-02-01"), ("train_delay_model", "2013-03", "2013-02")],
)
def test_a_range_that_ends_before_it_starts_is_refused(job_name: str, first: str, last: str) -> None:
    with pytest.raises(UnknownPartitionError) as caught:
        batches(job_name, first, last)
    assert str(caught.value) == f"--from {first} is later than --to {last}."
