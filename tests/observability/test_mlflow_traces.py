"""Tests traces of runs in MLflow, on a database and on a server: complete, and once only."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg
import pytest

from ledgerline.ledger import ids
from ledgerline.ledger.history import Outcome, RunHistory, RunStatus
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill, TargetUnavailableError
from ledgerline.mlflow_store import store
from ledgerline.testing.recordings import Recording, Recordings
from ledgerline.traces.mlflow_traces import MLflowSpanExporter
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.telemetry import Telemetry
from tests.observability.collectors import Answer, Request, http_collector
from tests.observability.exported_spans import context_of, path_of, spans_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Span, Trace

RUN_PAGE = "http://dagster.example"


@dataclass
class Target:
    """MLflow, with an experiment of one test."""

    client: "MlflowClient"
    experiment_id: str
    opened: int = 0

    @property
    def projection(self) -> TraceProjection:
        return TraceProjection(
            "MLflow", lambda: MLflowSpanExporter(self._open), Telemetry(), Links(dagster=RUN_PAGE)
        )

    def trace(self, trace_id: int) -> "Trace":
        """Return the trace with this id, as MLflow's UI loads it."""
        return self.client.get_trace(f"tr-{trace_id:032x}")

    def trace_of(self, history: RunHistory) -> "Trace":
        return self.trace(ids.trace_id(history.run.run_id))

    def found(self) -> "list[Trace]":
        """All of the experiment, as its page lists them."""
        return list(self.client.search_traces(locations=[self.experiment_id]))

    def _open(self) -> "tuple[MlflowClient, str]":
        self.opened += 1
        return self.client, self.experiment_id


@pytest.fixture
def target(client: "MlflowClient", artifacts: str | None, request: pytest.FixtureRequest) -> Target:
    return Target(client, store.experiment_id(client, request.node.name, artifacts))


@pytest.fixture
def database(mlflow_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Target:
    """MLflow without a server, for what does not depend on it."""
    client = store.connect(mlflow_database)
    return Target(client, store.experiment_id(client, request.node.name, str(tmp_path / "artifacts")))


def of_its_own(recording: Recording) -> Recording:
    """The same under another id: all tests share a server, and a trace is in one experiment only."""
    return replace(recording, run=replace(recording.run, run_id=str(uuid4())))


def paths(spans: "list[Span]") -> list[list[str]]:
    """The name of each span, after the names of all above it."""
    by_id = {span.span_id: span for span in spans}

    def path(span: "Span") -> list[str]:
        return [*(path(by_id[span.parent_id]) if span.parent_id else []), span.name]

    return sorted(path(span) for span in spans)


@pytest.mark.parametrize(
    ("run", "state"),
    [
        ("ops", "OK"),
        ("processes", "OK"),  # though an attempt failed
        ("traced", "OK"),
        ("retries", "ERROR"),
        ("killed", "ERROR"),
        ("canceled in the queue", "ERROR"),
    ],
)
def test_a_run_is_a_trace_with_its_state_and_all_its_spans(
    target: Target, recorded: Recordings, instance_of_runs: dg.DagsterInstance, run: str, state: str
) -> None:
    history = recorded[run].history
    spans = spans_of(history)
    assert target.projection.export(instance_of_runs, history, None) == len(spans)

    trace = target.trace_of(history)
    assert trace.info.state == state
    assert paths(trace.data.spans) == sorted(path_of(span, spans) for span in spans)
    assert {span.span_id for span in trace.data.spans} == {
        f"{context_of(span).span_id:016x}" for span in spans
    }
    (root,) = [span for span in trace.data.spans if span.parent_id is None]
    assert root.name == f"run {history.title}"
    assert root.span_type == "WORKFLOW"
    (listed,) = target.found()
    assert (listed.info.trace_id, listed.info.state) == (trace.info.trace_id, state)


def test_spans_sent_twice_are_stored_once(
    target: Target, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    history = of_its_own(recorded["retries"]).history
    for _ in range(2):
        target.projection.export(instance_of_runs, history, None)
    names = Counter(span.name for span in target.trace_of(history).data.spans)
    assert names == Counter(span.name for span in spans_of(history))
    assert len(target.found()) == 1


def test_a_trace_is_in_progress_until_its_root_is_exported(
    target: Target, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    recording, projection = of_its_own(recorded["ops"]), target.projection
    before, states = None, []
    for end in range(1, len(recording.records) + 1):
        now = recording.history_of(recording.records[:end])
        if projection.export(instance_of_runs, now, before):
            states.append(target.trace_of(now).info.state)
        before = now
    assert states == ["IN_PROGRESS", "IN_PROGRESS", "OK"]
    assert target.opened == 1


def test_a_span_that_is_exported_again_with_changes_is_replaced(
    database: Target, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    killed = recorded["killed"].history
    (die,) = killed.attempts
    succeeded = replace(die, outcome=Outcome.SUCCESS)
    # Dagster gave up on the process of the run, which reports its end later.
    after_all = replace(killed, attempts=(succeeded,), status=RunStatus.SUCCESS, error=None)
    for history, state in ((killed, "ERROR"), (after_all, "OK")):
        database.projection.export(instance_of_runs, history, None)
        spans = database.trace_of(killed).data.spans
        assert len(spans) == len(spans_of(killed))
        # The state in MLflow's list stays that of the first root.
        assert {span.status.status_code.value for span in spans if span.name in ("die", "run dying")} == {
            state
        }


def test_a_trace_has_the_inputs_and_outputs_of_the_run(
    database: Target, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    history = recorded["retries"].history
    database.projection.export(instance_of_runs, history, None)
    info = database.trace_of(history).info
    assert info.request_preview == '"retrying"'
    assert info.response_preview == '"FAILURE: fail_always"'
    assert info.request_time == int(min(history.run.created, history.started or 0) * 1000)
    (root,) = [span for span in database.trace_of(history).data.spans if span.parent_id is None]
    assert root.attributes["dagster.run.url"] == f"{RUN_PAGE}/runs/{history.run.run_id}"
    (event,) = root.events
    assert event.attributes["exception.message"] == "nobody answers"


def test_a_backfill_is_a_trace_with_a_span_for_each_run(
    target: Target, recorded: Recordings, instance_of_runs: dg.DagsterInstance, request: pytest.FixtureRequest
) -> None:
    backfill_id = request.node.name
    projection, histories = target.projection, []
    for day, run in (("monday", "ops"), ("tuesday", "one op")):
        history = of_its_own(recorded[run]).history
        tags = {"dagster/backfill": backfill_id, "dagster/partition": day}
        histories.append(replace(history, run=replace(history.run, tags=tags)))
        projection.export(instance_of_runs, histories[-1], None)
    trace_id = ids.backfill_trace_id(backfill_id)
    assert target.trace(trace_id).info.state == "IN_PROGRESS"
    projection.export_backfill(Backfill(backfill_id, 1.0, 2.0, "COMPLETED_SUCCESS", None))
    trace = target.trace(trace_id)
    assert trace.info.state == "OK"
    root = f"backfill {backfill_id}"
    assert paths(trace.data.spans) == [[root], [root, "run counting monday"], [root, "run fetching tuesday"]]
    assert len(target.found()) == 3


def test_an_mlflow_that_cannot_be_opened_accepts_no_traces(
    recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    def open_experiment() -> "tuple[MlflowClient, str]":
        raise store.StoreUnreachableError("The MLflow server does not answer.")

    projection = TraceProjection("MLflow", lambda: MLflowSpanExporter(open_experiment), Telemetry())
    with pytest.raises(TargetUnavailableError, match="does not answer"):
        projection.export(instance_of_runs, recorded["ops"].history, None)


def test_a_deleted_experiment_accepts_no_traces(
    mlflow_server: str, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    from mlflow import MlflowClient

    target = Target(MlflowClient(mlflow_server), "987654321")
    with pytest.raises(TargetUnavailableError, match="MLflow does not accept traces"):
        target.projection.export(instance_of_runs, of_its_own(recorded["ops"]).history, None)


@pytest.fixture
def stopped_server() -> str:
    """The URL, with a login, of a server that has stopped."""
    with http_collector() as server:
        url = server.url
    return url.replace("http://", "http://user:pa55word@")


def test_an_unavailable_server_is_named_without_its_password(
    stopped_server: str, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    from mlflow import MlflowClient

    target = Target(MlflowClient(stopped_server), "1")
    with pytest.raises(TargetUnavailableError) as caught:
        target.projection.export(instance_of_runs, recorded["ops"].history, None)
    assert "pa55word" not in str(caught.value)
    assert "Connection refused" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(302, headers={"Location": "https://login.example/?next=1"}), r"to https://login.example/\."),
        (Answer(headers={"Content-Type": "text/html"}, body=b"<html>Sign in"), "an HTML page"),
        (Answer(401, body=b"You are not authenticated"), "401 Unauthorized: You are not authenticated"),
    ],
    ids=["redirect", "login page", "no login"],
)
def test_a_server_behind_a_login_accepts_no_traces(
    recorded: Recordings, instance_of_runs: dg.DagsterInstance, answer: Answer, why: str
) -> None:
    from mlflow import MlflowClient

    with http_collector() as server:
        server.answers = lambda request: answer
        target = Target(MlflowClient(server.url), "1")
        with pytest.raises(TargetUnavailableError, match=why):
            target.projection.export(instance_of_runs, recorded["ops"].history, None)


def test_a_span_that_the_server_refuses_is_in_the_trace_without_its_attributes(
    recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    from mlflow import MlflowClient

    history = recorded["ops"].history
    step = history.attempts[0].step

    def refuses(request: Request) -> Answer | None:
        poison = [span for span in request.spans if span.name == step and len(span.attributes) > 1]
        return Answer(400, body=b'{"detail": "Invalid OpenTelemetry spans"}') if poison else None

    with http_collector() as server:
        server.answers = refuses
        target = Target(MlflowClient(server.url), "1")
        assert target.projection.export(instance_of_runs, history, None) == len(spans_of(history))
        names = [span.name for span in server.spans]
        assert names.count(step) == 1
        assert set(names) == {span.name for span in spans_of(history)}
