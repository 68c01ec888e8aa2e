"""Settings: defaults, overrides, wrong values, and what the processes it starts are told."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ledgerline.dagster import resources as library_resources
from ledgerline.dagster.agent import SECRET_VARIABLES, AgentResource
from ledgerline.dagster.agent_settings import AgentSettings
from ledgerline.dagster.projections import RunProjections
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.resources import agent_of
from ledgerline.dagster.settings import Settings, environment_with, export, set_library_defaults
from ledgerline.dagster.storage.io_managers import TableStorage
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger.links import Links
from ledgerline.registry.promotion import Mode
from ledgerline.serving.settings import ServingSettings
from ledgerline.settings.library_defaults import MLFLOW_DEFAULTS
from ledgerline.traces.telemetry import Telemetry
from resources.wiring import resources_for
from tests.project import EXPERIMENT, PROJECT, PROJECT_ROOT

# OpenTelemetry's for traces only; whoever needs them knows OpenTelemetry's own list.
OTHER_NAMES = {
    "LEDGERLINE_PROJECT",  # says where the file is
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_TRACES_EXPORTER",
}
# By OpenTelemetry's exporters when they are opened; by Dagster's EnvVar; with a sampler that has an argument.
READ_BY_LIBRARIES = {
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER_ARG",
}
# Read where the language model is a server with OpenAI's protocol.
OF_OPENAI = {"OPENAI_BASE_URL"}


class RecordingEnvironment(Mapping[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def variables_read() -> set[str]:
    environment = RecordingEnvironment()
    Settings.from_environment(environment)
    ServingSettings.from_environment(environment)
    return environment.asked | OF_OPENAI


def documented_variables() -> set[str]:
    lines = (PROJECT_ROOT / ".env.example").read_text().splitlines()
    names = [line.removeprefix("# ").split("=")[0] for line in lines if "=" in line]
    return {name for name in names if name.isidentifier() and name.isupper()}


def test_without_any_variable_everything_is_below_one_folder():
    settings = Settings.from_environment({})

    home = PROJECT_ROOT / ".ledgerline"
    assert settings == Settings(
        project=PROJECT,
        home=home,
        dagster_home=home / "dagster",
        tracking_uri=f"sqlite:///{home}/mlflow.db",
        experiment="flight_delay",
        artifacts=str(home / "artifacts"),
        data=str(home / "data"),
        request_log=str(home / "serving" / "requests"),
        executor="multiprocess",
        max_concurrent_steps=0,
        dagster_port=3000,
        mlflow_port=5000,
        serving_port=8080,
        telemetry=Telemetry(disabled=False, endpoint=None, protocol="http/protobuf", ratio=1.0),
        links=Links(
            dagster="http://127.0.0.1:3000",
            mlflow="http://127.0.0.1:5000",
            trace="http://127.0.0.1:5000/#/experiments/{experiment_id}/traces/{mlflow_trace_id}",
        ),
        observer="sensors",
        openlineage_url=None,
        openlineage_namespace="ledgerline",
        promotion=Mode.automatic,
        registry_poll_seconds=5,
        has_alerts=False,
        webhook_secret=None,
        webhook_port=5010,
        agent=AgentSettings.from_environment({}, home),
    )


def test_everything_moves_with_the_home_folder(tmp_path: Path):
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path)})

    assert settings.dagster_home == tmp_path / "dagster"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.artifacts == str(tmp_path / "artifacts")
    assert settings.data == str(tmp_path / "data")
    assert settings.request_log == str(tmp_path / "serving" / "requests")


def test_each_variable_overrides_its_default():
    settings = Settings.from_environment(
        {
            "LEDGERLINE_HOME": "/srv/state",
            "DAGSTER_HOME": "/srv/dagster",
            "MLFLOW_TRACKING_URI": "sqlite:////srv/tracking.db",
            "LEDGERLINE_EXPERIMENT": "bread",
            "LEDGERLINE_ARTIFACTS": "/srv/artifacts",
            "LEDGERLINE_DATA": "/srv/data",
            "LEDGERLINE_REQUEST_LOG": "/srv/requests",
            "LEDGERLINE_EXECUTOR": "in_process",
            "LEDGERLINE_MAX_CONCURRENT_STEPS": "4",
            "LEDGERLINE_DAGSTER_PORT": "3001",
            "LEDGERLINE_MLFLOW_PORT": "5001",
            "LEDGERLINE_SERVING_PORT": "8081",
            "OTEL_SDK_DISABLED": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "LEDGERLINE_DAGSTER_URL": "https://dagster.example",
            "LEDGERLINE_MLFLOW_URL": "https://mlflow.example",
            "LEDGERLINE_TRACE_URL": "https://traces.example/{trace_id}",
            "LEDGERLINE_OBSERVER": "service",
            "OPENLINEAGE_URL": "https://marquez.example",
            "OPENLINEAGE_NAMESPACE": "bakery",
            "LEDGERLINE_PROMOTION": "approved",
            "LEDGERLINE_REGISTRY_POLL_SECONDS": "300",
            "LEDGERLINE_ALERT_URL": "https://chat.example/hook",
            "LEDGERLINE_WEBHOOK_SECRET": "s3cret",
            "LEDGERLINE_WEBHOOK_PORT": "5011",
        }
    )

    assert settings == Settings(
        project=PROJECT,
        home=Path("/srv/state"),
        dagster_home=Path("/srv/dagster"),
        tracking_uri="sqlite:////srv/tracking.db",
        experiment="bread",
        artifacts="/srv/artifacts",
        data="/srv/data",
        request_log="/srv/requests",
        executor="in_process",
        max_concurrent_steps=4,
        dagster_port=3001,
        mlflow_port=5001,
        serving_port=8081,
        telemetry=Telemetry(True, "http://collector.example:4317", "grpc", 0.25),
        links=Links("https://dagster.example", "https://mlflow.example", "https://traces.example/{trace_id}"),
        observer="service",
        openlineage_url="https://marquez.example",
        openlineage_namespace="bakery",
        promotion=Mode.approved,
        registry_poll_seconds=300,
        has_alerts=True,
        webhook_secret="s3cret",
        webhook_port=5011,
        agent=AgentSettings.from_environment({}, Path("/srv/state")),
    )


def test_a_secret_is_not_shown_with_the_settings():
    settings = Settings.from_environment({"LEDGERLINE_WEBHOOK_SECRET": "s3cret"})

    assert "s3cret" not in repr(settings)


def test_an_empty_variable_is_as_good_as_none():
    names = RecordingEnvironment()
    Settings.from_environment(names)

    assert Settings.from_environment(dict.fromkeys(names.asked, "")) == Settings.from_environment({})


def test_requests_are_logged_on_this_machine_only():
    with pytest.raises(ValueError, match=r"^LEDGERLINE_REQUEST_LOG is 's3://bucket/log'; set it to a folder"):
        Settings.from_environment({"LEDGERLINE_REQUEST_LOG": "s3://bucket/log"})


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment(
        {
            "LEDGERLINE_HOME": "state",
            "DAGSTER_HOME": "instance",
            "LEDGERLINE_DATA": "./tables",
            "LEDGERLINE_REQUEST_LOG": "requests",
            "LEDGERLINE_ARTIFACTS": "files",
        }
    )

    assert settings.home == tmp_path / "state"
    assert settings.dagster_home == tmp_path / "instance"
    assert settings.data == str(tmp_path / "tables")
    assert settings.request_log == str(tmp_path / "requests")
    assert settings.artifacts == str(tmp_path / "files")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/state/mlflow.db"


def test_urls_are_kept_as_they_are():
    settings = Settings.from_environment(
        {
            "LEDGERLINE_DATA": "s3://bucket/tables",
            "LEDGERLINE_ARTIFACTS": "gs://bucket/files/",
            "MLFLOW_TRACKING_URI": "https://mlflow.example/",
        }
    )

    assert settings.data == "s3://bucket/tables"
    assert settings.artifacts == "gs://bucket/files/"
    assert settings.tracking_uri == "https://mlflow.example/"


def test_a_server_decides_where_artifacts_go_unless_it_is_told():
    server = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}

    assert Settings.from_environment(server).artifacts is None
    told = server | {"LEDGERLINE_ARTIFACTS": "s3://bucket/files"}
    assert Settings.from_environment(told).artifacts == "s3://bucket/files"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LEDGERLINE_EXECUTOR", "celery", "multiprocess, multiprocess_spawn, in_process, kubernetes"),
        ("LEDGERLINE_MAX_CONCURRENT_STEPS", "-1", "a whole number (default 0)"),
        ("LEDGERLINE_DAGSTER_PORT", "http", "a whole number (default 3000)"),
        ("LEDGERLINE_MLFLOW_PORT", "5000.0", "a whole number (default 5000)"),
        ("LEDGERLINE_OBSERVER", "daemon", "sensors, service"),
        ("LEDGERLINE_PROMOTION", "manual", "automatic, approved"),
        ("LEDGERLINE_REGISTRY_POLL_SECONDS", "5s", "a whole number (default 5)"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str, expected: str):
    with pytest.raises(ValueError, match=f"^{name} is '{value}'; set it to ") as error:
        Settings.from_environment({name: value})

    assert expected in str(error.value)


def test_the_example_names_every_variable_that_is_read():
    assert variables_read() - documented_variables() - OTHER_NAMES == set()


def test_the_example_names_no_variable_that_nothing_reads():
    assert documented_variables() - variables_read() - set(MLFLOW_DEFAULTS) - READ_BY_LIBRARIES == set()


def test_pages_are_where_the_servers_are_unless_they_have_addresses_of_their_own():
    ports = {"LEDGERLINE_DAGSTER_PORT": "3001", "LEDGERLINE_MLFLOW_PORT": "5001"}
    links = Settings.from_environment(ports).links
    assert (links.dagster, links.mlflow) == ("http://127.0.0.1:3001", "http://127.0.0.1:5001")

    server = {"MLFLOW_TRACKING_URI": "https://somebody:s3cret@mlflow.example/"}
    links = Settings.from_environment(ports | server).links
    assert links.mlflow == "https://somebody:***@mlflow.example"
    assert links.trace is not None
    assert links.trace.startswith("https://somebody:***@mlflow.example/#/")

    seen_elsewhere = server | {"LEDGERLINE_MLFLOW_URL": "https://seen.example/mlflow/"}
    assert Settings.from_environment(seen_elsewhere).links.mlflow == "https://seen.example/mlflow"
    dagster = {"LEDGERLINE_DAGSTER_URL": "https://dagster.example/"}
    assert Settings.from_environment(dagster).links.run_page("abc") == "https://dagster.example/runs/abc"


@pytest.mark.parametrize(
    ("variables", "page"),
    [
        ({}, "http://127.0.0.1:5000/#/experiments/7/traces/tr-{hex}"),
        ({"LEDGERLINE_MLFLOW_URL": "http://m"}, "http://m/#/experiments/7/traces/tr-{hex}"),
        ({"LEDGERLINE_JAEGER_URL": "http://jaeger:16686/"}, "http://jaeger:16686/trace/{hex}"),
        ({"LEDGERLINE_TRACE_URL": "http://t/?id={trace_id}"}, "http://t/?id={hex}"),
        (
            {"LEDGERLINE_TRACE_URL": "http://t/{mlflow_trace_id}", "LEDGERLINE_JAEGER_URL": "http://jaeger"},
            "http://t/tr-{hex}",
        ),
    ],
)
def test_the_page_of_a_trace_is_mlflows_or_jaegers_or_any(variables: dict[str, str], page: str):
    run_id = "01234567-89ab-4def-8123-456789abcdef"

    found = Settings.from_environment(variables).links.trace_page(run_id, experiment_id="7")

    assert found == page.format(hex=run_id.replace("-", ""))


@pytest.mark.parametrize("template", ["http://t/{run}", "http://t/{}", "http://t/{trace_id"])
def test_a_template_that_cannot_be_filled_in_is_named_with_what_it_may_have(template: str):
    with pytest.raises(ValueError, match=r"^LEDGERLINE_TRACE_URL is ") as error:
        Settings.from_environment({"LEDGERLINE_TRACE_URL": template})

    assert repr(template) in str(error.value)
    assert "{trace_id}, {mlflow_trace_id} and {experiment_id}" in str(error.value)


@pytest.mark.parametrize("value", ["marquez.example:5000", "ftp://marquez.example", "s3cret"])
def test_an_address_for_lineage_that_is_none_is_refused_and_not_shown(value: str):
    with pytest.raises(ValueError, match=r"^OPENLINEAGE_URL is no address; set it to ") as error:
        Settings.from_environment({"OPENLINEAGE_URL": value})

    assert value not in str(error.value)


def test_steps_trace_as_the_variables_of_opentelemetry_say():
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
    }
    settings = Settings.from_environment(variables)

    otel = resources_for(settings)["otel"]

    assert isinstance(otel, OTelResource)
    assert otel.telemetry == settings.telemetry
    assert otel.telemetry == Telemetry(False, "http://collector.example:4318/v1/traces", "http/protobuf", 0.5)


def test_a_value_that_opentelemetry_would_pass_over_is_passed_over(caplog: pytest.LogCaptureFixture):
    variables = {"OTEL_TRACES_SAMPLER": "by_mood", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}

    assert Settings.from_environment(variables).telemetry == Telemetry()
    assert "by_mood" in caplog.text
    assert "pigeon" in caplog.text


def test_the_key_for_lineage_is_not_shown_but_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "s3cret")
    variables = {"OPENLINEAGE_URL": "http://marquez.example", "OPENLINEAGE_NAMESPACE": "bakery"}
    without_key = Settings.from_environment(variables)
    settings = Settings.from_environment(variables | {"OPENLINEAGE_API_KEY": "s3cret"})

    # A key that the settings lack is not read from the environment.
    unauthorised = library_resources.projections(without_key)
    assert isinstance(unauthorised, RunProjections)
    assert unauthorised.openlineage_api_key is None
    assert "s3cret" not in repr(settings)
    projections = library_resources.projections(settings)

    assert isinstance(projections, RunProjections)
    assert "s3cret" not in repr(projections)
    assert projections.openlineage_namespace == "bakery"
    with projections.process_config_and_initialize_cm() as initialised:
        assert initialised.openlineage_api_key == "s3cret"


def test_without_an_address_the_key_for_lineage_is_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "s3cret")

    projections = library_resources.projections(Settings.from_environment({}))

    assert isinstance(projections, RunProjections)
    assert (projections.openlineage_url, projections.openlineage_api_key) == (None, None)


def test_resources_follow_the_settings():
    settings = Settings.from_environment(
        {"LEDGERLINE_DATA": "s3://bucket/tables", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    )

    resources = resources_for(settings)

    tables, mlflow, registry = (resources[name] for name in ("tables", "mlflow", "registry"))
    assert isinstance(tables, TableStorage)
    assert isinstance(mlflow, MLflowResource)
    assert isinstance(registry, ModelRegistryResource)
    assert tables.base == "s3://bucket/tables"
    assert mlflow.tracking_uri == registry.tracking_uri == "http://127.0.0.1:5000"
    assert (mlflow.experiment, mlflow.artifacts) == (EXPERIMENT, None)


def test_a_login_in_the_server_address_is_not_shown_but_used(monkeypatch: pytest.MonkeyPatch):
    uri = "https://somebody:s3cret@mlflow.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    resources = resources_for(Settings.from_environment({"MLFLOW_TRACKING_URI": uri}))

    for name in ("mlflow", "registry"):
        resource = resources[name]
        assert isinstance(resource, MLflowResource | ModelRegistryResource)
        assert "s3cret" not in repr(resource)
        assert resource.process_config_and_initialize().tracking_uri == uri


def test_the_key_and_passwords_of_a_language_model_are_not_shown_but_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = {
        "LEDGERLINE_LLM_PROVIDER": "openai",
        "OPENAI_BASE_URL": "https://somebody:s3cret@llm.example/v1",
        "OPENAI_API_KEY": "s3cret-key",
        "LEDGERLINE_SEARCH_URL": "https://somebody:s3cret@search.example",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment(variables)
    assert "s3cret" not in repr(settings)

    agent = resources_for(settings)["agent"]

    assert isinstance(agent, AgentResource)
    assert "s3cret" not in repr(agent)
    with agent_of(settings) as initialised:
        assert initialised.address == variables["OPENAI_BASE_URL"]
        assert initialised.api_key == variables["OPENAI_API_KEY"]
        assert initialised.search_url == variables["LEDGERLINE_SEARCH_URL"]


def test_dagster_shows_the_names_of_secret_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"OPENAI_API_KEY": "s3cret", "OLLAMA_HOST": "http://somebody:s3cret@llm.example"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    agent = resources_for(Settings.from_environment(variables))["agent"]
    assert isinstance(agent, AgentResource)

    shown = agent.get_resource_definition().config_schema.default_value

    assert shown["api_key"] == {"env": "OPENAI_API_KEY"}
    assert shown["address"] == {"env": "OLLAMA_HOST"}
    assert "s3cret" not in str(shown)


def test_every_variable_that_is_kept_out_of_traces_is_one_that_is_documented() -> None:
    assert {
        name for name in SECRET_VARIABLES if name.startswith(("LEDGERLINE", "OPENAI", "OPENLINEAGE"))
    } <= (documented_variables())


def test_exported_settings_are_read_back_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = (
        "DAGSTER_HOME",
        "MLFLOW_TRACKING_URI",
        "LEDGERLINE_DATA",
        "LEDGERLINE_ARTIFACTS",
        "LEDGERLINE_REQUEST_LOG",
    )
    for name in names:
        monkeypatch.setenv(name, "")  # so that what export() sets is taken back
    monkeypatch.setenv("LEDGERLINE_HOME", "")
    settings = Settings.from_environment(
        {
            "LEDGERLINE_HOME": str(tmp_path),
            "LEDGERLINE_DATA": "s3://bucket/tables",
            "LEDGERLINE_REQUEST_LOG": "off",
        }
    )
    assert settings.request_log is None

    export(settings)

    assert Settings.from_environment() == settings


def test_a_process_inherits_the_environment_and_the_additions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEDGERLINE_EXECUTOR", "in_process")

    environment = environment_with({"LEDGERLINE_MLFLOW_PORT": "5001"})

    assert environment["LEDGERLINE_EXECUTOR"] == "in_process"
    assert environment["LEDGERLINE_MLFLOW_PORT"] == "5001"
    assert "LEDGERLINE_MLFLOW_PORT" not in os.environ


def test_what_is_set_already_is_not_overridden_by_defaults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")

    set_library_defaults()

    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


HEAVY = {"duckdb", "lancedb", "mlflow", "ollama", "openai", "pandas", "pyarrow", "sklearn", "skops"}


def test_reading_the_settings_imports_nothing_heavy_and_creates_nothing(tmp_path: Path):
    code = (
        "import sys; from ledgerline.dagster.settings import Settings; "
        "from resources.wiring import resources_for; "
        "resources_for(Settings.from_environment()); "
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment_with({"LEDGERLINE_HOME": str(tmp_path / "home")}),
        capture_output=True,
        text=True,
        check=True,
    )

    assert child.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_a_limit_that_would_keep_opentelemetry_from_being_imported_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "64")

    set_library_defaults()

    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" not in os.environ
    assert os.environ["OTEL_SPAN_EVENT_COUNT_LIMIT"] == "64"
    assert "'abc'" in caplog.text
