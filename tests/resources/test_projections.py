"""Tests the projections that the settings enable, and their targets."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest
from mlflow import MlflowClient

from ledgerline.dagster import resources as library_resources
from ledgerline.dagster.projections import RETRY_SECONDS, RunProjections
from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import TargetUnavailableError
from ledgerline.settings.shared import TraceVariables
from ledgerline.testing.loopback_servers import LoopbackServer, Refusal, Request, listening
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.written_runs import Clock, clock_to_put_forward
from ledgerline.traces import attributes
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.telemetry import Telemetry
from tests.project import EXPERIMENT

LOGIN = "somebody:a-password"


@dataclass
class BrokenServer(LoopbackServer):
    """Responds to every request with 503, and counts."""

    asked: int = 0

    def respond(self, request: Request, body: bytes) -> None:
        self.asked += 1
        request.refuse(Refusal(503))


@pytest.fixture
def history(instance: dg.DagsterInstance) -> RunHistory:
    """A run that has ended."""

    @dg.asset
    def planes() -> int:
        return 3

    run_id = dg.materialize([planes], instance=instance).run_id
    history = read_history(instance, run_id)
    assert history is not None
    return history


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """The receiver at OTEL_EXPORTER_OTLP_ENDPOINT, which exporters read themselves."""
    with listening(Receiver()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture
def clock() -> Iterator[Clock]:
    with clock_to_put_forward() as clock:
        yield clock


def made(**variables: str) -> RunProjections:
    resource = library_resources.projections(Settings.from_environment(variables))
    assert isinstance(resource, RunProjections)
    with resource.process_config_and_initialize_cm() as initialised:
        return initialised


def experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return experiment.experiment_id


# Enabled projections


def test_runs_are_tracked_before_they_are_traced() -> None:
    assert [projection.name for projection in made().all()] == ["mlflow", "traces"]


def test_lineage_is_sent_only_where_it_has_an_address() -> None:
    assert made().lineage() is None
    lineage = made(OPENLINEAGE_URL="http://marquez.example:5000", OPENLINEAGE_NAMESPACE="bakery").lineage()
    assert lineage is not None
    assert lineage.address == "http://marquez.example:5000/api/v1/lineage"
    assert (lineage.namespace, lineage.api_key) == ("bakery", None)
    assert [each.name for each in made(OPENLINEAGE_URL="http://marquez.example").all()] == [
        "mlflow",
        "traces",
        "openlineage",
    ]


@pytest.mark.parametrize("variable", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_traces_can_be_switched_off_and_runs_are_tracked_all_the_same(variable: dict[str, str]) -> None:
    assert made(**variable).traces() is None
    assert [projection.name for projection in made(**variable).all()] == ["mlflow"]


def test_every_setting_of_traces_reaches_the_exporter() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "LEDGERLINE_KEEP_FAILED_RUNS": "true",
        "LEDGERLINE_KEEP_RUNS_OVER_SECONDS": "600",
    }
    read = Telemetry.of(TraceVariables.from_environment(variables))
    assert [f.name for f in fields(read) if getattr(read, f.name) == f.default] == ["disabled"]
    projections = projections_of(Settings.from_environment(variables))
    (traces,) = [each for each in projections if isinstance(each, TraceProjection)]
    assert traces.telemetry == read


def test_a_process_without_dagster_gets_the_same_projections() -> None:
    settings = Settings.from_environment({"OPENLINEAGE_URL": "http://marquez.example"})
    assert [each.name for each in projections_of(settings)] == ["mlflow", "traces", "openlineage"]


def test_secrets_are_read_when_they_are_used_and_not_printed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-key")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{LOGIN}@mlflow.example:5000")
    settings = Settings.from_environment(
        {
            "MLFLOW_TRACKING_URI": f"http://{LOGIN}@mlflow.example:5000",
            "OPENLINEAGE_URL": "http://marquez.example",
            "OPENLINEAGE_API_KEY": "a-key",
        }
    )
    resource = library_resources.projections(settings)
    assert isinstance(resource, RunProjections)
    assert "a-key" not in repr(resource)
    assert "a-password" not in repr(resource)

    mlflow, traces, lineage = projections_of(settings)
    assert getattr(lineage, "api_key") == "a-key"  # noqa: B009
    assert getattr(mlflow, "tracking_uri") == "http://somebody:***@mlflow.example:5000"  # noqa: B009
    assert getattr(traces, "target") == "http://somebody:***@mlflow.example:5000"  # noqa: B009


# Targets of traces


def test_traces_go_to_mlflow_as_long_as_no_endpoint_is_set(
    instance: dg.DagsterInstance, history: RunHistory, mlflow_database: str
) -> None:
    traces = made(MLFLOW_TRACKING_URI=mlflow_database).traces()
    assert traces is not None
    assert traces.target == mlflow_database
    assert traces.export(instance, history, None) > 0
    trace = MlflowClient(mlflow_database).get_trace(f"tr-{history.run.run_id.replace('-', '')}")
    assert trace.info.experiment_id == experiment_id(MlflowClient(mlflow_database))


def test_traces_go_to_the_endpoint_with_links_to_the_other_pages(
    instance: dg.DagsterInstance, history: RunHistory, mlflow_database: str, collector: Receiver
) -> None:
    traces = made(
        MLFLOW_TRACKING_URI=mlflow_database,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        LEDGERLINE_DAGSTER_URL="http://dagster.example",
        LEDGERLINE_MLFLOW_URL="http://mlflow.example",
    ).traces()
    assert traces is not None
    assert traces.target == f"{collector.url}/v1/traces"
    traces.export(instance, history, None)

    run_id = history.run.run_id
    root = collector.trace(run_id).root
    experiment = experiment_id(MlflowClient(mlflow_database))
    query = quote(f"tags.`dagster.run_id` = '{run_id}'")
    assert root.attributes[attributes.RUN_URL] == f"http://dagster.example/runs/{run_id}"
    assert (
        root.attributes[attributes.MLFLOW_URL]
        == f"http://mlflow.example/#/experiments/{experiment}/runs?searchFilter={query}"
    )


def test_a_trace_is_sent_without_a_link_while_mlflow_is_unavailable(
    instance: dg.DagsterInstance, history: RunHistory, collector: Receiver, clock: Clock
) -> None:
    with listening(BrokenServer()) as mlflow:
        variables = {"MLFLOW_TRACKING_URI": mlflow.url, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        traces = made(**variables).traces()
        assert traces is not None
        traces.export(instance, history, None)
        once = mlflow.asked
        assert once > 0
        for _ in range(3):
            traces.export(instance, history, None)
        assert mlflow.asked == once
        clock.forward(RETRY_SECONDS)
        traces.export(instance, history, None)
        assert mlflow.asked == 2 * once
    assert attributes.MLFLOW_URL not in collector.trace(history.run.run_id).root.attributes


def test_the_first_trace_after_an_outage_of_mlflow_has_a_link(
    instance: dg.DagsterInstance,
    history: RunHistory,
    mlflow_database: str,
    collector: Receiver,
    clock: Clock,
) -> None:
    database = Path(mlflow_database.removeprefix("sqlite:///"))
    folder = database.with_name("not there yet")
    folder.write_text("in the way")
    uri = f"sqlite:///{folder}/mlflow.db"
    traces = made(MLFLOW_TRACKING_URI=uri, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).traces()
    assert traces is not None
    traces.export(instance, history, None)
    folder.unlink()
    folder.mkdir()
    database.rename(folder / "mlflow.db")
    clock.forward(RETRY_SECONDS)
    traces.export(instance, history, None)
    assert attributes.MLFLOW_URL in collector.trace(history.run.run_id).root.attributes


# Unavailable targets


@pytest.mark.parametrize("name", ["mlflow", "traces"])
def test_an_unavailable_mlflow_server_is_named(
    instance: dg.DagsterInstance,
    history: RunHistory,
    refusing_url: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = refusing_url.replace("://", f"://{LOGIN}@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # with a login it is read when it is used
    (projection,) = [each for each in made(MLFLOW_TRACKING_URI=uri).all() if each.name == name]
    with pytest.raises(TargetUnavailableError) as caught:
        projection.export(instance, history, None)
    assert refusing_url.removeprefix("http://") in str(caught.value)
    assert "a-password" not in str(caught.value)


# Lineage


def test_without_an_address_the_lineage_of_a_run_is_kept_in_mlflow(
    instance: dg.DagsterInstance, history: RunHistory, mlflow_database: str, tmp_path: Path
) -> None:
    made(
        MLFLOW_TRACKING_URI=mlflow_database,
        LEDGERLINE_ARTIFACTS=str(tmp_path / "artifacts"),
        OPENLINEAGE_NAMESPACE="bakery",
    ).mlflow_runs().export(instance, history, None)
    client = MlflowClient(mlflow_database)
    (run,) = client.search_runs([experiment_id(client)])
    assert [file.path for file in client.list_artifacts(run.info.run_id, "lineage")] == [
        "lineage/planes.json"
    ]
    (stored,) = (tmp_path / "artifacts").rglob("planes.json")
    assert '"bakery"' in stored.read_text()
