"""Creates OpenLineage events from a RunHistory. facets.py creates their facets, and projection.py sends them.

The import takes 0.4 s, nearly all of it for OpenLineage's client, so import this module only where events are
created.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from uuid import UUID, uuid5

import dagster as dg
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    RunFacet,
    dataset_version_dataset,
    job_type_job,
    parent_run,
    processing_engine_run,
)
from openlineage.client.serde import Serde

from ledgerline.ledger import ids
from ledgerline.ledger.dagster_internals import INTERRUPTED_ERROR
from ledgerline.ledger.history import Attempt, Materialisation, Outcome, RunHistory, RunStatus
from ledgerline.ledger.reads import Read, Source, version_of_content
from ledgerline.lineage import facets as lineage_facets
from ledgerline.lineage.facets import (
    CodeVersion,
    LedgerlineRunFacet,
    ReadAssertionsDatasetFacet,
    WriterAssertionsDatasetFacet,
    assertions,
)

# The producer of events and facets. The URI is only an identifier, like FACET_SCHEMA.
PRODUCER = "urn:ledgerline:lineage"

MAX_FILE_NAME = 200  # bytes; file systems accept 255

RUN_ENDS = {
    RunStatus.SUCCESS: RunState.COMPLETE,
    RunStatus.FAILURE: RunState.FAIL,
    RunStatus.CANCELED: RunState.ABORT,
}


def run_events(
    history: RunHistory,
    namespace: str,
    *,
    before: RunHistory | None = None,
    mlflow_run_id: str | None = None,
) -> list[RunEvent]:
    """Return the events of a run and of its attempts, in order. Equal histories have equal events.

    Args:
        history: History of the run. A run that has not started has no events.
        namespace: OpenLineage namespace of jobs and datasets.
        before: Earlier history of the run, whose events are left out.
        mlflow_run_id: Id of the MLflow run of this run.
    """
    if not _begun(history):
        return []
    events = _Events(history, namespace, mlflow_run_id)
    known = len(before.attempts) if before is not None else 0
    of_steps = [events.attempt_started(attempt) for attempt in history.attempts[known:]]
    of_steps += [events.attempt_ended(attempt) for attempt in history.ended_since(before)]
    new = sorted(of_steps, key=lambda event: event.eventTime)
    if before is None or not _begun(before):
        new.insert(0, events.of_run(RunState.START, history.started or history.run.created))
    if history.ended is not None and (
        before is None or (before.ended, before.status) != (history.ended, history.status)
    ):
        new.append(events.of_run(RUN_ENDS[history.status], history.ended, history.materialisations))
    return new


def documents(history: RunHistory, namespace: str, mlflow_run_id: str | None = None) -> dict[str, bytes]:
    """Return the event of the last attempt that wrote each asset as JSON, by file name.

    An event contains this asset alone, even if the step wrote several, and all partitions that it wrote.
    """
    events = _Events(history, namespace, mlflow_run_id)
    last: dict[str, Attempt] = {}
    for attempt in history.attempts:
        if attempt.ended is not None:
            last |= dict.fromkeys((written.asset for written in attempt.materialisations), attempt)
    return {
        _file_name(asset): f"{Serde.to_json(event, indent=2)}\n".encode()
        for asset, attempt in last.items()
        for event in [events.attempt_ended(_narrowed(attempt, asset))]
    }


@dataclass
class _Seen:
    """The sources, versions and caveats of one asset that an attempt read or observed."""

    sources: list[Source] = field(default_factory=list)
    versions: set[str | None] = field(default_factory=set)
    caveats: list[str] = field(default_factory=list)

    def add(self, read: Read, sources: Sequence[Source]) -> None:
        known = {(each.storage_id, each.partition) for each in self.sources}
        self.sources += [each for each in sources if (each.storage_id, each.partition) not in known]
        self.versions |= {each.version for each in sources}
        if read.caveat is not None and read.caveat not in self.caveats:
            self.versions.add(None)
            self.caveats.append(read.caveat)


@dataclass
class _Events:
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
            for asset in {written.asset for written in attempt.materialisations}:
                self._writers.setdefault(asset, []).append(attempt)

    # Events of the run

    def of_run(self, state: RunState, time: float, written: Sequence[Materialisation] = ()) -> RunEvent:
        run, error = self.history.run, self.history.error
        facets = self._run_facets(ids.run_span_id(run.run_id), written)
        facets |= lineage_facets.run_tags(run.tags)
        if run.parent_run_id is not None:
            facets["parent"] = self._parent(run.parent_run_id)
        if error is not None and state is not RunState.START:
            # The error of the run may contain only the names of the failed steps.
            failed = [each for each in self.history.attempts if each.outcome is Outcome.FAILURE]
            reasons = [each.error for each in failed if each.error is not None]
            facets["errorMessage"] = lineage_facets.error(error, *([] if error.stack else reasons[:1]))
        return self._event(state, time, Run(_run_id(run.run_id), facets), self._job(run.job, "JOB"))

    # Events of attempts

    def attempt_started(self, attempt: Attempt) -> RunEvent:
        return self._attempt_event(RunState.START, attempt.started, attempt)

    def attempt_ended(self, attempt: Attempt) -> RunEvent:
        return self._attempt_event(self._end_of(attempt), attempt.ended or attempt.started, attempt)

    def _attempt_event(self, state: RunState, time: float, attempt: Attempt) -> RunEvent:
        run, started = self.history.run, state is RunState.START
        span_id = ids.attempt_span_id(run.run_id, attempt.step, attempt.number)
        facets = self._run_facets(span_id, () if started else attempt.materialisations, attempt)
        facets["parent"] = self._parent(run.run_id)
        error = self.history.error_of(attempt)
        if error is not None and not started:
            facets["errorMessage"] = lineage_facets.error(error)
        return self._event(
            state,
            time,
            Run(str(uuid5(UUID(_run_id(run.run_id)), f"{attempt.step}:{attempt.number}")), facets),
            self._job(f"{run.job}.{attempt.step}", "STEP"),
            inputs=[] if started else self._inputs(attempt),
            outputs=[] if started else [self._output(*each, attempt) for each in attempt.written.items()],
        )

    def _end_of(self, attempt: Attempt) -> RunState:
        if not attempt.failed:
            return RunState.COMPLETE
        if attempt.error is not None and attempt.error.type == INTERRUPTED_ERROR:
            return RunState.ABORT
        if attempt.outcome is Outcome.INTERRUPTED and self.history.status is not RunStatus.FAILURE:
            return RunState.ABORT
        return RunState.FAIL

    # Datasets of attempts

    def _inputs(self, attempt: Attempt) -> list[InputDataset]:
        """Return the assets that the attempt read, observed or checked, without those that it wrote."""
        own = {(written.asset, written.data_version) for written in attempt.materialisations}
        datasets: dict[str, _Seen] = {}
        for read in attempt.reads:
            # A step may write one asset from another asset that it wrote itself.
            sources = [
                each
                for each in read.sources
                if each.run_id != self.history.run.run_id or (read.asset, each.data_version) not in own
            ]
            if sources or not read.sources:
                datasets.setdefault(read.asset, _Seen()).add(read, sources)
        for observed in attempt.observations:
            datasets.setdefault(observed.asset, _Seen()).versions.add(observed.data_version)
        for check in attempt.checks:
            if check.asset not in attempt.written and check.asset not in datasets:
                latest = {self._version(each) for each in self._latest(check.asset, attempt)}
                datasets[check.asset] = _Seen(versions=latest)
        return [self._input(asset, seen, attempt) for asset, seen in datasets.items()]

    def _input(self, asset: str, seen: "_Seen", attempt: Attempt) -> InputDataset:
        facets = _version_facets(seen.versions)
        schemas = [each.schema for each in (*seen.sources, *self._latest(asset, attempt)) if each.schema]
        if schemas:
            facets["schema"] = lineage_facets.columns(schemas[-1])
        input_facets = lineage_facets.input_facets(seen.sources, seen.caveats)
        checks = [check for check in attempt.checks if check.asset == asset]
        if checks and asset not in attempt.written:
            input_facets["dataQualityAssertions"] = ReadAssertionsDatasetFacet(assertions(checks))
        return InputDataset(self.namespace, asset, inputFacets=input_facets, facets=facets)

    def _version(self, written: Materialisation) -> str | None:
        return version_of_content(written.data_version, written.is_of_code, self.history.run.run_id)

    def _output(self, asset: str, parts: Sequence[Materialisation], attempt: Attempt) -> OutputDataset:
        facets = _version_facets({self._version(part) for part in parts})
        facets |= lineage_facets.ownership(self.history.owners.get(asset, ()))
        latest = parts[-1]
        if latest.schema is not None:
            facets["schema"] = lineage_facets.columns(latest.schema)
        if latest.column_lineage is not None:
            facets["columnLineage"] = lineage_facets.column_lineage(latest.column_lineage, self.namespace)
        checks = [check for check in attempt.checks if check.asset == asset]
        if checks:
            facets["dataQualityAssertions"] = WriterAssertionsDatasetFacet(assertions(checks))
        return OutputDataset(
            self.namespace,
            asset,
            outputFacets=lineage_facets.output_facets(parts, self.history.run.run_id),
            facets=facets,
        )

    def _latest(self, asset: str, reader: Attempt) -> Sequence[Materialisation]:
        """Return the last write of an asset in this run, up to and including an attempt."""
        until = self._order[reader.step, reader.number]
        for writer in reversed(self._writers.get(asset, [])):
            if self._order[writer.step, writer.number] <= until:
                return writer.written[asset]
        return []

    # Parts of all events

    def _run_facets(
        self, span_id: int, written: Sequence[Materialisation], attempt: Attempt | None = None
    ) -> dict[str, RunFacet]:
        run = self.history.run
        # Dagster records the run id as the code version of an asset without a code version.
        versions = {each.asset: each.code_version for each in written if each.code_version != run.run_id}
        return {
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
            ),
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(dg.__version__, "Dagster"),
            **lineage_facets.nominal_time(
                *run.partition_range,
                [*self.history.planned_partitions, *(each.partition for each in written if each.partition)],
            ),
        }

    def _parent(self, run_id: str) -> RunFacet:
        # A re-execution has the same job as its parent run.
        job, root = self.history.run.job, self.history.run.root_run_id or run_id
        return parent_run.ParentRunFacet(
            parent_run.Run(_run_id(run_id)),
            parent_run.Job(self.namespace, job),
            parent_run.Root(parent_run.RootRun(_run_id(root)), parent_run.RootJob(self.namespace, job)),
        )

    def _job(self, name: str, kind: str) -> Job:
        facets: dict[str, JobFacet] = {"jobType": job_type_job.JobTypeJobFacet("BATCH", "DAGSTER", kind)}
        return Job(self.namespace, name, facets)

    def _event(
        self,
        state: RunState,
        time: float,
        run: Run,
        job: Job,
        *,
        inputs: Sequence[InputDataset] = (),
        outputs: Sequence[OutputDataset] = (),
    ) -> RunEvent:
        parts = [run.facets, job.facets]
        parts += [each.facets for each in (*inputs, *outputs)]
        parts += [each.inputFacets for each in inputs]
        parts += [each.outputFacets for each in outputs]
        # OpenLineage's set_producer would change the producer of other libraries in this process, too.
        for facets in parts:
            for facet in (facets or {}).values():
                facet._producer = PRODUCER
        return RunEvent(
            eventType=state,
            eventTime=lineage_facets.iso(datetime.fromtimestamp(time, UTC), "microseconds"),
            run=run,
            job=job,
            inputs=list(inputs),
            outputs=list(outputs),
            producer=PRODUCER,
        )


def _begun(history: RunHistory) -> bool:
    # The start of a waiting run is unknown, so its event would have to be sent again later.
    return history.started is not None or history.finished or bool(history.attempts)


def _run_id(run_id: str) -> str:
    return str(UUID(int=ids.trace_id(run_id)))


def _version_facets(versions: set[str | None]) -> dict[str, DatasetFacet]:
    # If partitions have different versions, only the facet ledgerline_partitions contains them.
    version = versions.pop() if len(versions) == 1 else None
    if version is None:
        return {}
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}


def _narrowed(attempt: Attempt, asset: str) -> Attempt:
    return replace(
        attempt,
        materialisations=tuple(written for written in attempt.materialisations if written.asset == asset),
        observations=(),
        checks=tuple(check for check in attempt.checks if check.asset == asset),
    )


def _file_name(asset: str) -> str:
    """Return a readable and unique file name that every file system accepts."""
    name = ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in asset.split("/"))
    if name.replace(".", "/") != asset:
        name += f"-{blake2b(asset.encode(), digest_size=4).hexdigest()}"
    if len(name) > MAX_FILE_NAME:
        name = f"{name[:MAX_FILE_NAME]}-{blake2b(asset.encode(), digest_size=8).hexdigest()}"
    return f"{name}.json"
