"""RunHistory -> OpenLineage events, in OpenLineage's own classes. Where they are sent: lineage_export.py.

Importing it takes 0.4 s, nearly all of it for OpenLineage's client: import it where events are made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from uuid import UUID, uuid5

import attr
import dagster as dg
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    JobFacet,
    OutputDatasetFacet,
    RunFacet,
    column_lineage_dataset,
    data_quality_assertions_dataset,
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
)
from openlineage.client.serde import Serde

from observability import ids
from observability.history import Attempt, Check, Error, Materialisation, Outcome, RunHistory, RunStatus

# Every event and facet says who made it, and a facet of one's own where it is defined. Both are URIs that
# identify and lead nowhere: this project has no public address.
PRODUCER = "urn:ledgerline:lineage"
FACET_SCHEMA = "urn:ledgerline:facet:{}:1-0-0"

# What Dagster writes for an upstream asset without any known version (dagster DEFAULT_DATA_VERSION).
NO_VERSION = "INITIAL"

PARTITION_STARTS = ("%Y-%m-%d", "%Y-%m-%d-%H:%M", "%Y-%m")
DAY = timedelta(days=1)

RUN_ENDS = {
    RunStatus.SUCCESS: RunState.COMPLETE,
    RunStatus.FAILURE: RunState.FAIL,
    RunStatus.CANCELED: RunState.ABORT,
}


@attr.define
class CodeVersion:
    """The version of the code that wrote an asset, where it declares one."""

    asset: str
    code_version: str


@attr.define
class LedgerlineRunFacet(RunFacet):
    """What finds a run, or an attempt at a step, in Dagster, in a trace and in MLflow."""

    dagster_run_id: str
    job: str
    trace_id: str
    span_id: str
    partition: str | None = None
    step: str | None = None
    attempt: int | None = None
    mlflow_run_id: str | None = None
    # Here because OpenLineage's facet for versions of code wants the URL of the code.
    code_versions: list[CodeVersion] = attr.field(factory=list)

    @staticmethod
    def _get_schema() -> str:
        return FACET_SCHEMA.format("LedgerlineRunFacet")


@attr.define
class WrittenPartition:
    """A partition, the version of its own content, and how many rows it has."""

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
    """Assertions by the step that wrote the dataset.

    OpenLineage has them for inputs only, which is to change: https://github.com/OpenLineage/OpenLineage/pull/4845.
    """

    assertions: list[data_quality_assertions_dataset.Assertion]

    @staticmethod
    def _get_schema() -> str:
        return data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet._get_schema()


def run_events(
    history: RunHistory,
    namespace: str,
    *,
    before: RunHistory | None = None,
    mlflow_run_id: str | None = None,
) -> list[RunEvent]:
    """What a run, and each attempt at each of its steps, has to say, in order; always the same for the same history.

    Args:
        history: What the run has done. Nothing is said of a run that has not begun.
        namespace: OpenLineage's, of jobs and datasets.
        before: An earlier history of the same run; what that had to say is left out.
        mlflow_run_id: The MLflow run that shows this run.
    """
    if not _begun(history):
        return []
    say = _Events(history, namespace, mlflow_run_id)
    known = len(before.attempts) if before is not None else 0
    of_steps = [say.attempt_started(attempt) for attempt in history.attempts[known:]]
    of_steps += [say.attempt_ended(attempt) for attempt in history.ended_since(before)]
    events = sorted(of_steps, key=lambda event: event.eventTime)
    if before is None or not _begun(before):
        events.insert(0, say.run_started())
    if history.ended is not None and (
        before is None or (before.ended, before.status) != (history.ended, history.status)
    ):
        events.append(say.run_ended(history.ended))
    return events


def documents(history: RunHistory, namespace: str, mlflow_run_id: str | None = None) -> dict[str, bytes]:
    """For each asset that was written: a file name, and as JSON the event of the last attempt that wrote it.

    The event is narrowed to that asset, whatever else the step wrote, and covers all partitions written.
    """
    say = _Events(history, namespace, mlflow_run_id)
    last: dict[str, Attempt] = {}
    for attempt in history.attempts:
        if attempt.ended is not None:
            last.update(dict.fromkeys((written.asset for written in attempt.materialisations), attempt))
    return {
        _file_name(
            asset
        ): f"{Serde.to_json(say.attempt_ended(_narrowed(attempt, asset)), indent=2)}\n".encode()
        for asset, attempt in last.items()
    }


@dataclass
class _Events:
    """Makes the events of one run."""

    history: RunHistory
    namespace: str
    mlflow_run_id: str | None
    _order: dict[tuple[str, int], int] = field(init=False)
    _writers: dict[str, list[Attempt]] = field(init=False)  # by asset

    def __post_init__(self) -> None:
        attempts = self.history.attempts
        self._order = {(attempt.step, attempt.number): index for index, attempt in enumerate(attempts)}
        self._writers = {}
        for attempt in attempts:
            for asset in dict.fromkeys(written.asset for written in attempt.materialisations):
                self._writers.setdefault(asset, []).append(attempt)

    # The run

    def run_started(self) -> RunEvent:
        return self._run_event(RunState.START, self.history.started or self.history.run.created, [])

    def run_ended(self, time: float) -> RunEvent:
        return self._run_event(RUN_ENDS[self.history.status], time, self.history.materialisations)

    def _run_event(self, state: RunState, time: float, written: Sequence[Materialisation]) -> RunEvent:
        run = self.history.run
        facets = self._facets(ids.run_span_id(run.run_id), written)
        if run.parent_run_id is not None:
            facets["parent"] = self._parent(run.parent_run_id)
        if state is not RunState.START and self.history.error is not None:
            failed = [attempt.error for attempt in self.history.attempts if attempt.failed and attempt.error]
            # The run says which steps failed, and the first of them why.
            facets["errorMessage"] = _error(self.history.error, *failed[:1])
        return RunEvent(
            eventType=state,
            eventTime=_timestamp(time),
            run=Run(_run_id(run.run_id), facets),
            job=self._job(run.job, "JOB"),
            producer=PRODUCER,
        )

    # Attempts at steps

    def attempt_started(self, attempt: Attempt) -> RunEvent:
        return self._attempt_event(RunState.START, attempt.started, attempt)

    def attempt_ended(self, attempt: Attempt) -> RunEvent:
        event = self._attempt_event(self._end_of(attempt), attempt.ended or attempt.started, attempt)
        event.inputs, event.outputs = self._inputs(attempt), self._outputs(attempt)
        return event

    def _attempt_event(self, state: RunState, time: float, attempt: Attempt) -> RunEvent:
        run = self.history.run
        written = attempt.materialisations if state is not RunState.START else ()
        facets = self._facets(ids.attempt_span_id(run.run_id, attempt.step, attempt.number), written, attempt)
        facets["parent"] = self._parent(run.run_id)
        if state in (RunState.FAIL, RunState.ABORT):
            facets["errorMessage"] = _error(self._why(attempt))
        return RunEvent(
            eventType=state,
            eventTime=_timestamp(time),
            run=Run(_attempt_id(run.run_id, attempt), facets),
            job=self._job(f"{run.job}.{attempt.step}", "STEP"),
            producer=PRODUCER,
        )

    def _end_of(self, attempt: Attempt) -> RunState:
        if not attempt.failed:
            return RunState.COMPLETE
        if attempt.outcome is Outcome.INTERRUPTED and self.history.status is not RunStatus.FAILURE:
            return RunState.ABORT
        return RunState.FAIL

    def _why(self, attempt: Attempt) -> Error:
        if attempt.error is not None:
            return attempt.error
        reason = self.history.error.message if self.history.error is not None else ""
        return Error("dagster.StepInterrupted", f"The run ended before this step did. {reason}".strip(), "")

    # Datasets

    def _inputs(self, attempt: Attempt) -> list[InputDataset]:
        """What was read, looked at or checked, and not written by the attempt itself."""
        outputs = {(written.asset, written.data_version) for written in attempt.materialisations}
        written_assets = {asset for asset, _ in outputs}
        versions: dict[str, set[str | None]] = {}
        for written in attempt.materialisations:
            for read in written.reads:
                if (read.asset, read.data_version) not in outputs:
                    versions.setdefault(read.asset, set()).add(read.data_version)
        for seen in attempt.observations:
            versions.setdefault(seen.asset, set()).add(seen.data_version)
        for check in attempt.checks:
            if check.asset not in written_assets and check.asset not in versions:
                versions[check.asset] = {
                    written.data_version for written in self._latest(check.asset, attempt)
                }
        return [self._input(asset, _only(of_asset), attempt) for asset, of_asset in versions.items()]

    def _input(self, asset: str, version: str | None, attempt: Attempt) -> InputDataset:
        facets: dict[str, DatasetFacet] = {}
        if version is not None and version != NO_VERSION:
            facets["version"] = _version(version)
        schema = next((w.schema for w in self._latest(asset, attempt) if w.schema is not None), None)
        if schema is not None:
            facets["schema"] = _schema(schema)
        input_facets: dict[str, InputDatasetFacet] = {}
        written = any(each.asset == asset for each in attempt.materialisations)
        assertions = [] if written else _assertions(attempt.checks, asset)
        if assertions:
            input_facets["dataQualityAssertions"] = (
                data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
                    assertions, producer=PRODUCER
                )
            )
        return InputDataset(self.namespace, asset, inputFacets=input_facets, facets=facets)

    def _outputs(self, attempt: Attempt) -> list[OutputDataset]:
        # One for each asset; of a partition written twice, what it came to.
        by_asset: dict[str, dict[str | None, Materialisation]] = {}
        for written in attempt.materialisations:
            by_asset.setdefault(written.asset, {})[written.partition] = written
        return [
            self._output(asset, list(parts.values()), attempt.checks) for asset, parts in by_asset.items()
        ]

    def _output(self, asset: str, parts: Sequence[Materialisation], checks: Sequence[Check]) -> OutputDataset:
        facets: dict[str, DatasetFacet] = {}
        latest = parts[-1]
        if latest.schema is not None:
            facets["schema"] = _schema(latest.schema)
        if latest.column_lineage is not None:
            facets["columnLineage"] = self._column_lineage(latest.column_lineage)
        version = _only({part.data_version for part in parts})
        if version is not None:
            facets["version"] = _version(version)
        assertions = _assertions(checks, asset)
        if assertions:
            facets["dataQualityAssertions"] = WriterAssertionsDatasetFacet(assertions, producer=PRODUCER)
        output_facets: dict[str, OutputDatasetFacet] = {}
        rows = [part.rows for part in parts if part.rows is not None]
        if len(rows) == len(parts):
            output_facets["outputStatistics"] = (
                output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=sum(rows), producer=PRODUCER
                )
            )
        partitions = [
            WrittenPartition(part.partition, part.content_sha256 or part.data_version, part.rows)
            for part in parts
            if part.partition is not None
        ]
        if partitions:
            output_facets["ledgerline_partitions"] = LedgerlinePartitionsOutputDatasetFacet(
                partitions, producer=PRODUCER
            )
        return OutputDataset(self.namespace, asset, outputFacets=output_facets, facets=facets)

    def _column_lineage(
        self, lineage: dg.TableColumnLineage
    ) -> column_lineage_dataset.ColumnLineageDatasetFacet:
        return column_lineage_dataset.ColumnLineageDatasetFacet(
            {
                column: column_lineage_dataset.Fields(
                    [
                        column_lineage_dataset.InputField(
                            self.namespace, source.asset_key.to_user_string(), source.column_name
                        )
                        for source in sources
                    ]
                )
                for column, sources in lineage.deps_by_column.items()
            },
            producer=PRODUCER,
        )

    def _latest(self, asset: str, reader: Attempt) -> Sequence[Materialisation]:
        """What the run wrote of an asset last before an attempt, or in it."""
        until = self._order[reader.step, reader.number]
        for writer in reversed(self._writers.get(asset, [])):
            if self._order[writer.step, writer.number] <= until:
                return [written for written in writer.materialisations if written.asset == asset]
        return []

    # Facets of runs and jobs

    def _facets(
        self, span_id: int, written: Sequence[Materialisation], attempt: Attempt | None = None
    ) -> dict[str, RunFacet]:
        run = self.history.run
        # Where an asset declares no version of its code, Dagster puts the run id.
        versions = {w.asset: w.code_version for w in written if w.code_version != run.run_id}
        facets: dict[str, RunFacet] = {
            "ledgerline_run": LedgerlineRunFacet(
                dagster_run_id=run.run_id,
                job=run.job,
                trace_id=f"{ids.trace_id(run.run_id):032x}",
                span_id=f"{span_id:016x}",
                partition=run.partition,
                step=attempt.step if attempt is not None else None,
                attempt=attempt.number if attempt is not None else None,
                mlflow_run_id=self.mlflow_run_id,
                code_versions=[CodeVersion(asset, version) for asset, version in versions.items() if version],
                producer=PRODUCER,
            ),
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                dg.__version__, "Dagster", producer=PRODUCER
            ),
        }
        nominal_time = _nominal_time(*run.partition_range, written)
        if nominal_time is not None:
            facets["nominalTime"] = nominal_time
        return facets

    def _parent(self, run_id: str) -> parent_run.ParentRunFacet:
        # A run that was executed again is of the same job.
        job, root = self.history.run.job, self.history.run.root_run_id or run_id
        return parent_run.ParentRunFacet(
            parent_run.Run(_run_id(run_id)),
            parent_run.Job(self.namespace, job),
            parent_run.Root(
                parent_run.RootRun(_run_id(root)),
                parent_run.RootJob(self.namespace, job),
            ),
            producer=PRODUCER,
        )

    def _job(self, name: str, kind: str) -> Job:
        facets: dict[str, JobFacet] = {
            "jobType": job_type_job.JobTypeJobFacet("BATCH", "DAGSTER", kind, producer=PRODUCER)
        }
        return Job(self.namespace, name, facets)


def _begun(history: RunHistory) -> bool:
    # While it waits its start is not known: said now, it would have to be said again.
    return history.started is not None or history.finished or bool(history.attempts)


def _run_id(run_id: str) -> str:
    return str(UUID(int=ids.trace_id(run_id)))


def _attempt_id(run_id: str, attempt: Attempt) -> str:
    return str(uuid5(UUID(int=ids.trace_id(run_id)), f"{attempt.step}:{attempt.number}"))


def _only(versions: set[str | None]) -> str | None:
    """The version that all have; None if they differ, or have none."""
    return next(iter(versions)) if len(versions) == 1 else None


def _narrowed(attempt: Attempt, asset: str) -> Attempt:
    return replace(
        attempt,
        materialisations=tuple(written for written in attempt.materialisations if written.asset == asset),
        observations=(),
        checks=tuple(check for check in attempt.checks if check.asset == asset),
    )


def _version(version: str) -> DatasetFacet:
    return dataset_version_dataset.DatasetVersionDatasetFacet(version, producer=PRODUCER)


def _schema(schema: dg.TableSchema) -> DatasetFacet:
    fields = [
        schema_dataset.SchemaDatasetFacetFields(column.name, column.type, column.description, position)
        for position, column in enumerate(schema.columns, start=1)
    ]
    return schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER)


def _assertions(checks: Sequence[Check], asset: str) -> list[data_quality_assertions_dataset.Assertion]:
    return [
        data_quality_assertions_dataset.Assertion(
            assertion=check.name,
            success=check.passed,
            severity=check.severity.lower(),
            name=check.name,
            description=check.description,
        )
        for check in checks
        if check.asset == asset
    ]


def _error(error: Error, *reasons: Error) -> RunFacet:
    stacks = [error.stack]
    stacks += [
        f"Caused by {cause.type}: {cause.message}\n{cause.stack}"
        for cause in (*error.causes, *(each for reason in reasons for each in (reason, *reason.causes)))
    ]
    return error_message_run.ErrorMessageRunFacet(
        f"{error.type}: {error.message}",
        "python",
        "\n".join(stack.strip("\n") for stack in stacks if stack) or None,
        producer=PRODUCER,
    )


def _nominal_time(first: str | None, last: str | None, written: Sequence[Materialisation]) -> RunFacet | None:
    """The time that partitions named after dates stand for, taken as UTC.

    A month is named after its first day, so a day alone does not tell its end. Two partitions that are a day
    apart do: then each is a day.
    """
    starts = _partition_start(first), _partition_start(last)
    if starts[0] is None or starts[1] is None:
        return None
    days = {day for day in (_day(each.partition) for each in written) if day is not None}
    daily = any(day + DAY in days for day in days)
    return nominal_time_run.NominalTimeRunFacet(
        _iso(starts[0], "seconds"), _iso(starts[1] + DAY, "seconds") if daily else None, producer=PRODUCER
    )


def _partition_start(key: str | None) -> datetime | None:
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


def _timestamp(seconds: float) -> str:
    return _iso(datetime.fromtimestamp(seconds, UTC), "microseconds")


def _iso(time: datetime, precision: str) -> str:
    return time.isoformat(timespec=precision).replace("+00:00", "Z")


def _file_name(asset: str) -> str:
    """Readable, accepted by any file system, and another one for each asset."""
    name = ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in asset.split("/"))
    if name.replace(".", "/") != asset:
        name += f"-{blake2b(asset.encode(), digest_size=4).hexdigest()}"
    return f"{name}.json"
