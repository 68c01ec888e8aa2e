"""Tests the versions that a step has read, by every kind of mapping, independently of later writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openlineage.client.serde import Serde

from ledgerline.ledger.event_log import HistoryReader, read_history, run_from
from ledgerline.ledger.history import Attempt, RunHistory
from ledgerline.ledger.reads import Basis, Read
from ledgerline.ledger.upstreams import Upstreams
from ledgerline.lineage import events as lineage
from ledgerline.mlflow_runs.datasets import run_datasets
from tests.observability import partitioned_assets as assets
from tests.observability.partitioned_assets import range_of

EVERYTHING = [*assets.UPSTREAMS, *assets.READERS, assets.running_total]


def run(
    instance: dg.DagsterInstance,
    *selected: dg.AssetsDefinition,
    key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> RunHistory:
    result = dg.materialize(
        EVERYTHING, selection=list(selected), instance=instance, partition_key=key, tags=tags
    )
    history = read_history(instance, result.run_id)
    assert history is not None
    return history


def one_by_one(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, keys: Sequence[str]
) -> dict[str, str | None]:
    """Write partitions in a run each; returns their versions."""
    versions = {}
    for key in keys:
        (written,) = run(instance, asset, key=key).materialisations
        versions[key] = written.data_version
    return versions


def read_of(history: RunHistory, asset: str) -> Read:
    (read,) = {read for attempt in history.attempts for read in (attempt.resolved_reads or {}).get(asset, ())}
    return read


def versions_of(read: Read) -> dict[str | None, str | None]:
    return {source.partition: source.data_version for source in read.sources}


JANUARY = [f"2024-01-{day:02}" for day in range(1, 32)]


@dataclass(frozen=True)
class Case:
    """A reader of partitions that were written in a run each."""

    name: str
    reader: dg.AssetsDefinition
    upstream: dg.AssetsDefinition
    written: Sequence[str]
    expected: Sequence[str]
    key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


TOWNS = ["2024-01-01|ewr", "2024-01-01|jfk", "2024-01-02|ewr"]
FIRST_MONTH, FIRST, SECOND, NINTH = "2024-01-01", JANUARY[0], JANUARY[1], JANUARY[8]
CASES = [
    Case("same partition", assets.same_day, assets.days, JANUARY[:3], [SECOND], SECOND),
    Case("range", assets.same_day, assets.days, JANUARY[:5], JANUARY[1:4], tags=range_of(*JANUARY[1:4:2])),
    Case("gaps", assets.same_day, assets.days, JANUARY[:3], JANUARY[:3], tags=range_of(*JANUARY[:5:4])),
    Case("days before", assets.week_before, assets.days, JANUARY[:10], JANUARY[1:8], NINTH),
    Case("days of a month", assets.month_of_days, assets.days, JANUARY[:4], JANUARY[:4], FIRST_MONTH),
    Case("all", assets.all_days, assets.days, JANUARY[:4], JANUARY[:4]),
    Case("last", assets.last_day, assets.days, [FIRST, "2024-02-29"], ["2024-02-29"]),
    Case("static", assets.mapped_town, assets.towns, ["ewr", "jfk", "lga"], ["lga"], "north"),
    Case("specific", assets.two_towns, assets.towns, ["ewr", "teb"], ["ewr", "teb"]),
    Case("a dimension", assets.day_of_both, assets.days_and_towns, TOWNS, TOWNS[:2], FIRST),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_versions_read_are_those_of_the_partitions_that_the_mapping_chose(
    instance: dg.DagsterInstance, case: Case
):
    versions = one_by_one(instance, case.upstream, case.written)
    run_id = run(instance, case.reader, key=case.key, tags=case.tags).run.run_id
    run(instance, case.upstream, key=case.written[0])  # what is written later was not read

    history = read_history(instance, run_id)

    assert history is not None
    read = read_of(history, case.reader.key.to_user_string())
    assert versions_of(read) == {key: versions[key] for key in case.expected}
    assert (read.basis, read.caveat) == (Basis.DIGEST, None)


def test_an_upstream_without_partitions_is_read_as_dagster_names_it(instance: dg.DagsterInstance):
    (written,) = run(instance, assets.whole).materialisations
    history = run(instance, assets.of_whole, key=JANUARY[0])
    run(instance, assets.whole)

    read = read_of(history, "of_whole")

    assert (versions_of(read), read.basis) == ({None: written.data_version}, Basis.NAMED)


def test_assets_that_the_same_run_wrote_before_are_read(instance: dg.DagsterInstance):
    history = run(instance, assets.days, assets.same_day, tags=range_of(*JANUARY[:2]))

    read = read_of(history, "same_day")

    written = {each.partition: each.data_version for each in history.materialisations if each.asset == "days"}
    assert (versions_of(read), read.basis) == (written, Basis.DIGEST)
    assert {source.run_id for source in read.sources} == {history.run.run_id}


@pytest.mark.parametrize(
    ("reader", "tags"),
    [(assets.all_numbers, {}), (assets.same_number, range_of("000", "119"))],
    ids=["all", "same partitions"],
)
def test_the_default_mapping_is_assumed_and_named_for_a_hundred_partitions_and_more(
    instance: dg.DagsterInstance, reader: dg.AssetsDefinition, tags: Mapping[str, str]
):
    first = run(instance, assets.numbers, tags=range_of("000", "119"))
    mended = run(instance, assets.numbers, key="007")

    history = run(instance, reader, tags=tags)

    read = read_of(history, reader.key.to_user_string())
    versions = {
        each.partition: each.data_version for each in (*first.materialisations, *mended.materialisations)
    }
    assert read.recorded == versions["007"]
    assert versions_of(read) == versions
    assert read.basis is Basis.MAPPING
    assert read.caveat is not None


def test_each_of_very_many_partitions_of_the_same_run_is_a_read(instance: dg.DagsterInstance):
    history = run(instance, assets.numbers, assets.same_number, tags=range_of("000", "119"))

    read = read_of(history, "same_number")

    written = {
        each.partition: each.data_version for each in history.materialisations if each.asset == "numbers"
    }
    assert (len(written), versions_of(read), read.basis) == (120, written, Basis.MAPPING)
    assert {source.run_id for source in read.sources} == {history.run.run_id}


def test_more_than_a_hundred_hours_are_read_as_their_days(instance: dg.DagsterInstance):
    written = run(instance, assets.hours, tags=range_of("2024-01-01-00:00", "2024-01-06-23:00"))

    history = run(instance, assets.day_of_hours, tags=range_of("2024-01-01", "2024-01-05"))

    read = read_of(history, "day_of_hours")
    assert len(read.sources) == 5 * 24
    assert (
        versions_of(read).items()
        <= {each.partition: each.data_version for each in written.materialisations}.items()
    )
    assert read.basis is Basis.MAPPING


def test_dagsters_record_of_unknown_partitions_is_not_a_version(instance: dg.DagsterInstance):
    """The log does not record which of several equal windows was read."""
    run(instance, assets.days, tags=range_of(JANUARY[0], JANUARY[9]))

    history = run(instance, assets.week_before, key=JANUARY[8])

    read = read_of(history, "week_before")
    assert (read.sources, read.basis) == ((), Basis.UNKNOWN)
    why = f"Dagster recorded {read.recorded}, but not which of 10 partitions were read"
    assert read.caveat == f"the versions read are unknown: {why}"
    (dataset, _) = run_datasets(history)
    assert {tag.key: tag.value for tag in dataset.tags} == {
        "mlflow.data.context": "input",
        "caveat": read.caveat,
    }
    (source,) = inputs(history)
    assert "version" not in source.get("facets", {})
    assert source["inputFacets"]["ledgerline_read"]["caveats"] == [read.caveat]


def test_an_upstream_of_which_nothing_was_there_has_no_versions(instance: dg.DagsterInstance):
    nothing = read_of(run(instance, assets.same_day, key=JANUARY[0]), "same_day")
    assert (nothing.sources, nothing.basis) == ((), Basis.NAMED)

    one_by_one(instance, assets.days, JANUARY[1:2])
    other = read_of(run(instance, assets.same_day, key=JANUARY[0]), "same_day")
    assert (other.sources, other.basis) == ((), Basis.DIGEST)


def test_deleted_materialisations_are_unknown(instance: dg.DagsterInstance):
    one_by_one(instance, assets.days, JANUARY[:1])
    run_id = run(instance, assets.same_day, key=JANUARY[0]).run.run_id
    instance.wipe_assets([dg.AssetKey("days")])

    history = read_history(instance, run_id)

    assert history is not None
    assert read_of(history, "same_day").basis is Basis.UNKNOWN


def test_an_asset_may_be_made_from_its_own_partition_before(instance: dg.DagsterInstance):
    first, second = (run(instance, assets.running_total, key=key) for key in JANUARY[:2])

    read = read_of(second, "running_total")

    (written,) = first.materialisations
    assert versions_of(read) == {JANUARY[0]: written.data_version}
    contexts = [tag.value for each in run_datasets(second) for tag in each.tags if "context" in tag.key]
    assert contexts == ["input", "output"]


def test_reader_and_writer_have_the_same_dataset_and_lineage_version(instance: dg.DagsterInstance):
    written = run(instance, assets.days, tags=range_of(*JANUARY[:3:2]))
    read = run(instance, assets.same_day, tags=range_of(*JANUARY[:3:2]))

    (output,) = run_datasets(written)
    source, _ = run_datasets(read)
    assert source.dataset == output.dataset
    assert json.loads(source.dataset.profile or "") == {"num_rows": 30, "num_partitions": 3}
    (of_writer,), (of_reader,) = outputs(written), inputs(read)
    assert (
        of_reader["facets"]["version"]["datasetVersion"] == of_writer["facets"]["version"]["datasetVersion"]
    )
    partitions = of_writer["outputFacets"]["ledgerline_partitions"]["partitions"]
    assert of_reader["inputFacets"]["ledgerline_read"]["partitions"] == partitions


def test_reads_do_not_depend_on_the_portions_of_the_log(instance: dg.DagsterInstance):
    one_by_one(instance, assets.days, JANUARY[:3])
    run_id = run(instance, assets.days, assets.same_day, tags=range_of(*JANUARY[:3:2])).run.run_id
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    records = instance.get_records_for_run(run_id).records
    at_once = read_history(instance, run_id)

    @settings(max_examples=25, deadline=None, database=None)
    @given(cuts=st.sets(st.integers(1, len(records))))
    def read_in_portions(cuts: set[int]) -> None:
        reader, upstreams = HistoryReader(run_from(record)), Upstreams(instance)
        before: RunHistory | None = None
        for start, end in pairwise([0, *sorted(cuts), len(records)]):
            reader.feed(records[start:end])
            now = upstreams.resolve(reader.history())
            assert all(attempt is again for attempt, again in _unchanged(before, now))
            before = now
        assert before == at_once

    read_in_portions()


def _unchanged(before: RunHistory | None, now: RunHistory) -> list[tuple[Attempt, Attempt]]:
    """The attempts that were the same before and are the same now."""
    pairs = zip(before.attempts if before is not None else (), now.attempts, strict=False)
    return [(earlier, later) for earlier, later in pairs if earlier == later and earlier.ended is not None]


def test_a_read_of_a_partition_names_the_run_that_wrote_it(instance: dg.DagsterInstance):
    written = run(instance, assets.days, tags=range_of(*JANUARY[:3:2]))
    read = run(instance, assets.same_day, key=JANUARY[0])

    source, _ = run_datasets(read)

    assert {tag.key: tag.value for tag in source.tags}["written_by"] == written.run.run_id
    assert json.loads(source.dataset.profile or "") == {"num_rows": 10, "num_partitions": 1}


def outputs(history: RunHistory) -> list[dict[str, Any]]:
    return _datasets(history, "outputs")


def inputs(history: RunHistory) -> list[dict[str, Any]]:
    return _datasets(history, "inputs")


def _datasets(history: RunHistory, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(Serde.to_json(event)) for event in lineage.run_events(history, "test")]
    return [dataset for event in events for dataset in event[kind]]
