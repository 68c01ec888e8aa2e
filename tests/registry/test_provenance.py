"""Tests the partitions that a version records, and how they are read."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.registry import provenance
from ledgerline.registry.provenance import Provenance, ProvenanceError, RowPartitions, ranges_text
from ledgerline.registry.versions import Version

DAYS = RowPartitions([f"2013-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)])
CITIES = RowPartitions(["Oslo", "Rome", "a/b", "x|y"], grow_at_the_end=False)


def version(**tags: str) -> Version:
    return Version("demand", 3, "", "", datetime(2026, 1, 1, tzinfo=UTC), tags)


@given(st.sets(st.sampled_from(list(DAYS.keys)), min_size=1, max_size=150))
def test_any_set_of_partitions_is_read_back_as_it_was_recorded(keys: set[str]) -> None:
    text = ranges_text(sorted(keys), DAYS)
    assert len(text) <= provenance.MAX_LENGTH
    assert provenance.trained_on(version(trained_on=text), DAYS) == sorted(keys)


def test_more_ranges_than_a_version_can_record_are_refused() -> None:
    with pytest.raises(ProvenanceError, match="168 partitions in 168 ranges are too many"):
        ranges_text(DAYS.keys[::2], DAYS)


def test_partitions_of_time_are_recorded_as_ranges() -> None:
    assert json.loads(ranges_text(DAYS.keys[:60], DAYS)) == [["2013-01-01", "2013-03-04"]]


def test_other_partitions_are_named_one_by_one_since_new_ones_may_be_added_between_them() -> None:
    text = ranges_text(["Oslo", "Rome"], CITIES)
    grown = RowPartitions(["Oslo", "Paris", "Rome"], grow_at_the_end=False)
    assert provenance.trained_on(version(trained_on=text), grown) == ["Oslo", "Rome"]


def test_keys_may_hold_any_character() -> None:
    text = ranges_text(["a/b", "x|y"], CITIES)
    assert provenance.evaluated_on(version(evaluated_on=text), CITIES) == ["a/b", "x|y"]


def test_a_partition_that_the_rows_do_not_have_is_not_recorded() -> None:
    with pytest.raises(
        ProvenanceError, match="'2014-01-01' is not a partition of the rows, which have from 2013-01-01"
    ):
        ranges_text(["2014-01-01"], DAYS)


def test_tags_of_release_0_1_are_still_read() -> None:
    old = version(month="2013-05-01", training_days="2013-02-01/2013-02-03")
    assert provenance.trained_on(old, DAYS) == ["2013-02-01", "2013-02-02", "2013-02-03"]
    assert provenance.partition_of(old) == "2013-05-01"
    assert provenance.evaluated_on(old, DAYS) is None


def test_an_interval_of_release_0_1_is_cut_to_the_partitions_that_there_are() -> None:
    old = version(training_days="2012-12-01/2013-01-02")
    assert provenance.trained_on(old, DAYS) == ["2013-01-01", "2013-01-02"]


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({}, "does not record which partitions it was trained on"),
        ({"trained_on": ""}, "does not record which partitions it was trained on"),
        ({"trained_on": "January"}, "is 'January', which is not a list of partitions"),
        ({"trained_on": "[]"}, "names no partition"),
        ({"trained_on": '["2013-01-01"]'}, "is not a list of partitions"),
        ({"trained_on": '[["2013-02-01", "2013-01-01"]]'}, "names no partition"),
        (
            {"trained_on": '[["2019-01-01", "2019-01-01"]]'},
            "names the partition '2019-01-01', and the rows have from 2013-01-01",
        ),
        ({"training_days": "2013-06-30/2013-04-01"}, "and there are no rows for that time"),
        ({"training_days": "2019-04-01/2019-06-30"}, "and there are no rows for that time"),
        ({"training_days": "2013-04-01"}, "and there are no rows for that time"),
    ],
)
def test_a_version_without_a_record_of_its_training_rows_is_named(tags: dict[str, str], problem: str) -> None:
    with pytest.raises(ProvenanceError, match=problem) as refused:
        provenance.trained_on(version(**tags), DAYS)
    assert "demand version 3" in str(refused.value)
    assert "trained_on" in str(refused.value)


def test_one_partition_that_was_trained_on_is_enough_to_refuse() -> None:
    one = version(trained_on='[["2013-01-01", "2013-02-01"]]')
    with pytest.raises(
        ProvenanceError, match=r"was trained on 1 of the 2 partitions from 2013-02-01 to 2013-02-02"
    ):
        provenance.require_new(one, ["2013-02-01", "2013-02-02"], DAYS)
    provenance.require_new(one, ["2013-02-02"], DAYS)


def test_provenance_becomes_tags() -> None:
    where = Provenance(
        partition="2013-02-01",
        trained_on=DAYS.keys[:28],
        evaluated_on=DAYS.keys[28:56],
        training_data_sha256="5a",
        details={"note": "n"},
    )
    assert provenance.tags_of(where, DAYS, None) == {
        "partition": "2013-02-01",
        "trained_on": '[["2013-01-01", "2013-01-28"]]',
        "evaluated_on": '[["2013-02-01", "2013-02-28"]]',
        "training_data_sha256": "5a",
        "note": "n",
    }
    assert provenance.tags_of(Provenance(partition=None), RowPartitions(), "share") == {"holdout": "share"}


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (
            '[["2013-01-01", "2013-01-28"], ["2013-03-01", "2013-03-01"]]',
            "2013-01-01 to 2013-01-28, 2013-03-01",
        ),
        ("2013-04-01/2013-06-30", "2013-04-01 to 2013-06-30"),
        ("by hand", "by hand"),
        ("12", "12"),
    ],
)
def test_recorded_partitions_are_printed_in_a_readable_form(text: str, printed: str) -> None:
    assert provenance.described(text) == printed
