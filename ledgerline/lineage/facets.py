"""Creates OpenLineage facets from a history, one function for each facet. events.py adds them to events."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attr
import dagster as dg
from openlineage.client.facet_v2 import (
    BaseFacet,
    DatasetFacet,
    InputDatasetFacet,
    OutputDatasetFacet,
    RunFacet,
    column_lineage_dataset,
    data_quality_assertions_dataset,
    error_message_run,
    nominal_time_run,
    output_statistics_output_dataset,
    ownership_dataset,
    schema_dataset,
    tags_run,
)

from ledgerline.cleaning.texts import clean
from ledgerline.ledger.given_by_users import numbers_by_name, user_tags
from ledgerline.ledger.history import Check, Error, Materialisation, asset_name
from ledgerline.ledger.reads import Source, version_of_content
from ledgerline.ledger.written import partition_rows, row_count

# The schema URI of Ledgerline's facets. It is only an identifier and has no page.
FACET_SCHEMA = "urn:ledgerline:facet:{}:1-0-0"

ReadAssertionsDatasetFacet = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet

MAX_NUMBERS = 500  # limit for one asset, because a backfill of several years has many partitions

# The formats of partition keys that contain a time: those of Dagster and ISO 8601, and months.
DATE, TIME, ISO_TIME = "%Y-%m-%d", "%Y-%m-%d-%H:%M", "%Y-%m-%dT%H:%M:%S"
PARTITION_STARTS = (DATE, TIME, ISO_TIME, "%Y-%m-%dT%H:%M", "%Y-%m")
# The length of a partition, by the format of the keys. It is valid only if it is also the smallest distance
# between two keys, because partitions may be closer together than their format suggests.
LENGTHS = {DATE: timedelta(days=1), TIME: timedelta(hours=1), ISO_TIME: timedelta(hours=1)}


class _OwnFacet(BaseFacet):
    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._schemaURL = FACET_SCHEMA.format(type(self).__name__)


@attr.define
class CodeVersion:
    """The version of the code that wrote an asset."""

    asset: str
    code_version: str


@attr.define
class LedgerlineRunFacet(_OwnFacet, RunFacet):
    """The ids of a run, or of an attempt at a step, in Dagster, in its trace and in MLflow."""

    dagster_run_id: str
    job: str
    trace_id: str
    span_id: str
    partition: str | None
    step: str | None
    attempt: int | None
    mlflow_run_id: str | None
    # OpenLineage has facets for code versions only together with the URL of the code, or the code itself.
    code_versions: list[CodeVersion]


@attr.define
class WrittenPartition:
    """A partition with the version of its content and its number of rows; None if they are unknown."""

    partition: str
    data_version: str | None
    rows: int | None


@attr.define
class LedgerlinePartitionsOutputDatasetFacet(_OwnFacet, OutputDatasetFacet):
    """The partitions of one asset that an attempt wrote."""

    partitions: list[WrittenPartition]


@attr.define
class GivenNumber:
    """A number in the metadata of an asset, with its partition if the numbers of partitions differ."""

    name: str
    value: float
    partition: str | None


@attr.define
class LedgerlineNumbersOutputDatasetFacet(_OwnFacet, OutputDatasetFacet):
    """The numbers in the metadata of an asset that an attempt wrote."""

    numbers: list[GivenNumber]


@attr.define
class LedgerlineReadInputDatasetFacet(_OwnFacet, InputDatasetFacet):
    """The partitions of one asset that an attempt read, with the caveats about them."""

    partitions: list[WrittenPartition]
    caveats: list[str]


@attr.define
class WriterAssertionsDatasetFacet(DatasetFacet):
    """The results of checks by the step that wrote a dataset.

    OpenLineage has this facet for inputs only, and plans to change that in the same way:
    https://github.com/OpenLineage/OpenLineage/pull/4845.
    """

    assertions: list[data_quality_assertions_dataset.Assertion]

    _get_schema = staticmethod(ReadAssertionsDatasetFacet._get_schema)


def columns(schema: dg.TableSchema) -> DatasetFacet:
    """Return the columns of a table."""
    return schema_dataset.SchemaDatasetFacet(
        [
            schema_dataset.SchemaDatasetFacetFields(
                clean(column.name),
                clean(column.type),
                clean(column.description) if column.description else None,
                position,
            )
            for position, column in enumerate(schema.columns, start=1)
        ]
    )


def column_lineage(lineage: dg.TableColumnLineage, namespace: str) -> DatasetFacet:
    """Return the upstream columns of each column."""
    return column_lineage_dataset.ColumnLineageDatasetFacet(
        {
            clean(column): column_lineage_dataset.Fields(
                [
                    column_lineage_dataset.InputField(
                        namespace, asset_name(source.asset_key), clean(source.column_name)
                    )
                    for source in sources
                ]
            )
            for column, sources in lineage.deps_by_column.items()
        }
    )


def input_facets(sources: Sequence[Source], caveats: Sequence[str]) -> dict[str, InputDatasetFacet]:
    """Return the partitions of one asset that were read, with the caveats about them."""
    partitions = [
        WrittenPartition(each.partition, each.content_sha256 or each.version, each.rows)
        for each in sources
        if each.partition is not None
    ]
    if not partitions and not caveats:
        return {}
    return {"ledgerline_read": LedgerlineReadInputDatasetFacet(partitions, list(caveats))}


def output_facets(parts: Sequence[Materialisation], run_id: str) -> dict[str, OutputDatasetFacet]:
    """Return the row count, the partitions and the numbers in the metadata of an asset that was written."""
    facets: dict[str, OutputDatasetFacet] = {}
    rows = row_count(parts)
    if rows is not None:
        facets["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rows)
    partitions = [
        WrittenPartition(
            part.partition,
            part.content_sha256 or version_of_content(part.data_version, part.is_of_code, run_id),
            rows,
        )
        for part, rows in zip(parts, partition_rows(parts), strict=True)
        if part.partition is not None
    ]
    if partitions:
        facets["ledgerline_partitions"] = LedgerlinePartitionsOutputDatasetFacet(partitions)
    numbers = [
        GivenNumber(name, number, part.partition if len(given) > 1 else None)
        for name, given in numbers_by_name(parts)
        for part, number in given
    ]
    if numbers:
        facets["ledgerline_numbers"] = LedgerlineNumbersOutputDatasetFacet(numbers[:MAX_NUMBERS])
    return facets


def ownership(owners: Sequence[str]) -> dict[str, DatasetFacet]:
    """Return the owners of an asset, which Dagster records as e-mail addresses or as `team:name`."""
    if not owners:
        return {}
    named = [ownership_dataset.Owner(owner if ":" in owner else f"user:{owner}", "OWNER") for owner in owners]
    return {"ownership": ownership_dataset.OwnershipDatasetFacet(named)}


def run_tags(tags: Mapping[str, str]) -> dict[str, RunFacet]:
    """Return the tags that users set on the run."""
    given = [tags_run.TagsRunFacetFields(name, value, "USER") for name, value in user_tags(tags).items()]
    return {"tags": tags_run.TagsRunFacet(given)} if given else {}


def error(happened: Error, *reasons: Error) -> RunFacet:
    """Return an error; the stack traces of its causes follow its own, as Python prints them."""
    causes = (*happened.causes, *(cause for reason in reasons for cause in (reason, *reason.causes)))
    stacks = replace(happened, causes=causes).stacks
    return error_message_run.ErrorMessageRunFacet(
        f"{happened.type}: {happened.message}" if happened.message else happened.type,
        "python",
        "\n".join(stack.strip("\n") for stack in stacks if stack) or None,
    )


def nominal_time(first: str | None, last: str | None, partitions: Iterable[str]) -> dict[str, RunFacet]:
    """Return the nominal time of partitions whose keys contain a time; an empty mapping for other partitions.

    A key without an offset is read as UTC, Dagster's default. When clocks are set back, an hour
    occurs twice. The key of its second occurrence has an offset, and the offset of the other keys is unknown;
    then the mapping is empty. A key contains only the start of a partition: a monthly partition is named
    after its first day. The end is known only if the partitions are a day or an hour apart.

    Args:
        first: First partition of the run.
        last: Last partition of the run.
        partitions: Partitions that the run wrote or planned to write.
    """
    start, start_of_last = _start(first), _start(last)
    if start is None or start_of_last is None:
        return {}
    known = {start_of_key for key in {first, last, *partitions} if (start_of_key := _start(key)) is not None}
    if len({start_of_key.has_offset for start_of_key in known if start_of_key.form == start.form}) > 1:
        return {}
    times = sorted(start_of_key.time for start_of_key in known if start_of_key.form == start.form)
    apart = min((after - before for before, after in pairwise(times)), default=None)
    end = start_of_last.time + apart if apart is not None and apart == LENGTHS.get(start.form) else None
    return {
        "nominalTime": nominal_time_run.NominalTimeRunFacet(
            iso(start.time, "seconds"), iso(end, "seconds") if end is not None else None
        )
    }


def iso(time: datetime, precision: str) -> str:
    """Return a time in UTC in the format of OpenLineage."""
    return time.isoformat(timespec=precision).replace("+00:00", "Z")


def assertions(checks: Sequence[Check]) -> list[data_quality_assertions_dataset.Assertion]:
    """Return the results of checks."""
    return [
        data_quality_assertions_dataset.Assertion(
            assertion=check.name,
            success=check.passed,
            severity=check.severity.lower(),
            name=check.name,
            description=check.description,
        )
        for check in checks
    ]


@dataclass(frozen=True)
class _Start:
    """The time in a partition key, in UTC."""

    time: datetime
    form: str
    has_offset: bool


def _start(key: str | None) -> _Start | None:
    """Return the time in a key; None unless exactly one of its dimensions is a time."""
    starts = [start for part in (key or "").split("|") if (start := _start_of_dimension(part)) is not None]
    return starts[0] if len(starts) == 1 else None


def _start_of_dimension(key: str) -> _Start | None:
    # Formats without an offset are tried first: the `-05:00` of `2013-07-01-05:00` is an hour.
    for offset in ("", "%z"):
        for form in PARTITION_STARTS:
            try:
                time = datetime.strptime(key, f"{form}{offset}")  # noqa: DTZ007  (it gets one below)
            except ValueError:
                continue
            in_utc = time.astimezone(UTC) if offset else time.replace(tzinfo=UTC)
            return _Start(in_utc, form, has_offset=bool(offset))
    return None
