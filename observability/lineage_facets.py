"""What a history says -> OpenLineage facets, one function for each. Which event has which: lineage.py."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import attr
import dagster as dg
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    OutputDatasetFacet,
    RunFacet,
    column_lineage_dataset,
    data_quality_assertions_dataset,
    error_message_run,
    nominal_time_run,
    output_statistics_output_dataset,
    schema_dataset,
)

from observability.cleaning import clean
from observability.history import Check, Error, Materialisation, asset_name
from observability.written import partition_rows, row_count

# Where our own facets are defined. It identifies and leads nowhere: this project has no public address.
FACET_SCHEMA = "urn:ledgerline:facet:{}:1-0-0"

PARTITION_STARTS = ("%Y-%m-%d", "%Y-%m-%d-%H:%M", "%Y-%m")
DAY = timedelta(days=1)


@attr.define
class CodeVersion:
    """The version of the code that wrote an asset."""

    asset: str
    code_version: str


@attr.define
class LedgerlineRunFacet(RunFacet):
    """What finds a run, or an attempt at a step, in Dagster, in a trace and in MLflow."""

    dagster_run_id: str
    job: str
    trace_id: str
    span_id: str
    partition: str | None
    step: str | None
    attempt: int | None
    mlflow_run_id: str | None
    # Here because OpenLineage has versions of code only together with the code's URL, or the code.
    code_versions: list[CodeVersion]

    @staticmethod
    def _get_schema() -> str:
        return FACET_SCHEMA.format("LedgerlineRunFacet")


@attr.define
class WrittenPartition:
    """A partition, the version of its own content as far as that is known, and how many rows it has."""

    partition: str
    data_version: str | None
    rows: int | None


@attr.define
class LedgerlinePartitionsOutputDatasetFacet(OutputDatasetFacet):
    """The partitions that an attempt wrote of one asset."""

    partitions: list[WrittenPartition]

    @staticmethod
    def _get_schema() -> str:
        return FACET_SCHEMA.format("LedgerlinePartitionsOutputDatasetFacet")


@attr.define
class WriterAssertionsDatasetFacet(DatasetFacet):
    """What the step that wrote a dataset asserted of it.

    OpenLineage has this facet for inputs only, and is about to change that as here:
    https://github.com/OpenLineage/OpenLineage/pull/4845.
    """

    assertions: list[data_quality_assertions_dataset.Assertion]

    @staticmethod
    def _get_schema() -> str:
        return data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet._get_schema()


def columns(schema: dg.TableSchema) -> DatasetFacet:
    """The columns of a table."""
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
    """For each column, those it was made from."""
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


def read_assertions(checks: Sequence[Check]) -> InputDatasetFacet:
    """What checks made of an asset that their step only read."""
    return data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(_assertions(checks))


def written_assertions(checks: Sequence[Check]) -> DatasetFacet:
    """What checks made of an asset that their step wrote itself."""
    return WriterAssertionsDatasetFacet(_assertions(checks))


def output_facets(parts: Sequence[Materialisation]) -> dict[str, OutputDatasetFacet]:
    """What was written of one asset: how many rows, if all partitions say so; which partitions, if any."""
    facets: dict[str, OutputDatasetFacet] = {}
    rows = row_count(parts)
    if rows is not None:
        facets["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rows)
    partitions = [
        WrittenPartition(part.partition, part.content_sha256 or part.data_version, rows)
        for part, rows in zip(parts, partition_rows(parts), strict=True)
        if part.partition is not None
    ]
    if partitions:
        facets["ledgerline_partitions"] = LedgerlinePartitionsOutputDatasetFacet(partitions)
    return facets


def error(happened: Error, *reasons: Error) -> RunFacet:
    """What went wrong; the stack of the error is followed by those of its causes, as Python prints them."""
    causes = [*happened.causes]
    for reason in reasons:
        causes += reason, *reason.causes
    stacks = [
        happened.stack,
        *(f"Caused by {cause.type}: {cause.message}\n{cause.stack}" for cause in causes),
    ]
    return error_message_run.ErrorMessageRunFacet(
        f"{happened.type}: {happened.message}" if happened.message else happened.type,
        "python",
        "\n".join(stack.strip("\n") for stack in stacks if stack) or None,
    )


def nominal_time(
    first: str | None, last: str | None, written: Sequence[Materialisation]
) -> dict[str, RunFacet]:
    """The time that partitions named after dates stand for, taken as UTC; nothing for other partitions.

    A month is named after its first day, so the name alone does not tell where it ends. Two partitions a day
    apart do: then each is a day.

    Args:
        first: The first partition of the run.
        last: The last one.
        written: What of it was written.
    """
    start, start_of_last = _start(first), _start(last)
    if start is None or start_of_last is None:
        return {}
    days = {day for day in (_day(each.partition) for each in written) if day is not None}
    daily = any(day + DAY in days for day in days)
    end = iso(start_of_last + DAY, "seconds") if daily else None
    return {"nominalTime": nominal_time_run.NominalTimeRunFacet(iso(start, "seconds"), end)}


def iso(time: datetime, precision: str) -> str:
    """A time in UTC as OpenLineage writes it."""
    return time.isoformat(timespec=precision).replace("+00:00", "Z")


def _assertions(checks: Sequence[Check]) -> list[data_quality_assertions_dataset.Assertion]:
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


def _start(key: str | None) -> datetime | None:
    for form in PARTITION_STARTS:
        try:
            return datetime.strptime(key or "", form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def _day(key: str | None) -> date | None:
    try:
        return date.fromisoformat(key or "")
    except ValueError:
        return None
