"""Tests settings: defaults, overrides, wrong values, and the environment of started processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerline.dagster import resources as library_resources
from ledgerline.dagster.agent import AgentResource
from ledgerline.dagster.projections import RunProjections
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.resources import agent_of
from ledgerline.dagster.settings import Settings, environment_with, export, set_library_defaults
from ledgerline.dagster.storage.io_managers import TableStorage
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger.links import Links
from ledgerline.settings.agents import AgentSettings
from ledgerline.settings.declaration import SettingsError, settings_of
from ledgerline.traces.telemetry import Telemetry
from resources.wiring import resources_for
from tests.project import EXPERIMENT, PROJECT, PROJECT_ROOT


def test_without_any_variable_everything_is_below_one_folder():
    settings = Settings.from_environment({})

    home = PROJECT_ROOT / ".ledgerline"
    assert (settings.project, settings.home, settings.dagster_home) == (PROJECT, home, home / "dagster")
    assert settings.tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert (settings.experiment, settings.artifacts) == ("flight_delay", str(home / "artifacts"))
    assert settings.data == str(home / "data")
    assert settings.request_log == home / "serving" / "requests"
    assert (settings.executor, settings.max_concurrent_steps) == ("multiprocess", 0)
    assert (settings.dagster_port, settings.mlflow_port, settings.serving_port) == (3000, 5000, 8080)
    assert settings.telemetry == Telemetry()
    assert settings.links == Links(
        dagster="http://127.0.0.1:3000",
        mlflow="http://127.0.0.1:5000",
        trace="http://127.0.0.1:5000/#/experiments/{experiment_id}/traces/{mlflow_trace_id}",
    )
    assert (settings.observer, settings.promotion) == ("sensors", "automatic")
    assert (settings.openlineage_url, settings.openlineage_namespace) == (None, "ledgerline")
    assert (settings.registry_poll_seconds, settings.webhook_port) == (5, 5010)
    assert (settings.alert_url, settings.webhook_secret) == (None, None)
    assert settings.agent == AgentSettings.from_environment({})


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("DAGSTER_HOME", "/srv/dagster", "dagster_home", Path("/srv/dagster")),
        ("MLFLOW_TRACKING_URI", "sqlite:////srv/tracking.db", "tracking_uri", "sqlite:////srv/tracking.db"),
        ("LEDGERLINE_EXPERIMENT", "bread", "experiment", "bread"),
        ("LEDGERLINE_ARTIFACTS", "/srv/artifacts", "artifacts", "/srv/artifacts"),
        ("LEDGERLINE_DATA", "/srv/data", "data", "/srv/data"),
        ("LEDGERLINE_REQUEST_LOG", "/srv/requests", "request_log", Path("/srv/requests")),
        ("LEDGERLINE_EXECUTOR", "in_process", "executor", "in_process"),
        ("LEDGERLINE_MAX_CONCURRENT_STEPS", "4", "max_concurrent_steps", 4),
        ("LEDGERLINE_DAGSTER_PORT", "3001", "dagster_port", 3001),
        ("LEDGERLINE_MLFLOW_PORT", "5001", "mlflow_port", 5001),
        ("LEDGERLINE_SERVING_PORT", "8081", "serving_port", 8081),
        ("OTEL_SDK_DISABLED", "true", "telemetry", Telemetry(disabled=True)),
        ("LEDGERLINE_OBSERVER", "service", "observer", "service"),
        ("OPENLINEAGE_URL", "https://marquez.example", "openlineage_url", "https://marquez.example"),
        ("OPENLINEAGE_API_KEY", "s3cret", "openlineage_api_key", "s3cret"),
        ("OPENLINEAGE_NAMESPACE", "bakery", "openlineage_namespace", "bakery"),
        ("LEDGERLINE_PROMOTION", "approved", "promotion", "approved"),
        ("LEDGERLINE_REGISTRY_POLL_SECONDS", "300", "registry_poll_seconds", 300),
        ("LEDGERLINE_ALERT_URL", "https://chat.example/hook", "alert_url", "https://chat.example/hook"),
        ("LEDGERLINE_WEBHOOK_SECRET", "s3cret", "webhook_secret", "s3cret"),
        ("LEDGERLINE_WEBHOOK_PORT", "5011", "webhook_port", 5011),
    ],
)
def test_each_variable_overrides_its_default(name: str, value: str, attribute: str, expected: object):
    assert getattr(Settings.from_environment({name: value}), attribute) == expected


def test_a_secret_is_not_printed_with_the_settings():
    settings = Settings.from_environment(
        {"LEDGERLINE_WEBHOOK_SECRET": "s3cret", "LEDGERLINE_ALERT_URL": "https://chat.example/s3cret"}
    )

    assert "s3cret" not in repr(settings)


def test_an_empty_variable_counts_as_not_set():
    names = [setting.name for setting in settings_of(Settings)]

    assert Settings.from_environment(dict.fromkeys(names, "")) == Settings.from_environment({})


def test_everything_moves_with_the_home_folder(tmp_path: Path):
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path)})

    assert settings.dagster_home == tmp_path / "dagster"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.artifacts == str(tmp_path / "artifacts")
    assert settings.data == str(tmp_path / "data")
    assert settings.request_log == tmp_path / "serving" / "requests"
    assert settings.agent.memory == str(tmp_path / "agent" / "memory")


def test_requests_are_logged_on_this_machine_only():
    with pytest.raises(
        SettingsError, match=r"^LEDGERLINE_REQUEST_LOG is 's3://bucket/log'; set it to a folder"
    ):
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
    assert settings.request_log == tmp_path / "requests"
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


def test_the_server_chooses_the_folder_of_artifacts_unless_one_is_set():
    server = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}

    assert Settings.from_environment(server).artifacts is None
    configured = server | {"LEDGERLINE_ARTIFACTS": "s3://bucket/files"}
    assert Settings.from_environment(configured).artifacts == "s3://bucket/files"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "LEDGERLINE_EXECUTOR",
            "celery",
            "multiprocess, multiprocess_spawn, in_process, kubernetes (default multiprocess)",
        ),
        ("LEDGERLINE_MAX_CONCURRENT_STEPS", "-1", "a whole number from 0 on (default 0)"),
        ("LEDGERLINE_DAGSTER_PORT", "http", "a whole number from 0 to 65535 (default 3000)"),
        ("LEDGERLINE_MLFLOW_PORT", "5000.0", "a whole number from 0 to 65535 (default 5000)"),
        ("LEDGERLINE_OBSERVER", "daemon", "sensors, service"),
        ("LEDGERLINE_PROMOTION", "manual", "automatic, approved"),
        ("LEDGERLINE_REGISTRY_POLL_SECONDS", "5s", "a whole number from 0 on (default 5)"),
    ],
)
def test_a_wrong_value_is_named_with_the_allowed_ones(name: str, value: str, expected: str):
    with pytest.raises(SettingsError, match=f"^{name} is '{value}'; set it to ") as error:
        Settings.from_environment({name: value})

    assert expected in str(error.value)


def test_pages_have_the_addresses_of_the_servers_unless_configured():
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
def test_an_invalid_template_is_named_with_the_possible_fields(template: str):
    with pytest.raises(SettingsError, match=r"^LEDGERLINE_TRACE_URL is ") as error:
        Settings.from_environment({"LEDGERLINE_TRACE_URL": template})

    assert repr(template) in str(error.value)
    assert "{trace_id}, {mlflow_trace_id} and {experiment_id}" in str(error.value)


@pytest.mark.parametrize("value", ["marquez.example:5000", "ftp://marquez.example", "s3cret"])
def test_a_wrong_address_for_lineage_is_refused_and_not_printed(value: str):
    with pytest.raises(
        SettingsError, match=r"^OPENLINEAGE_URL cannot be used; set it to an address "
    ) as error:
        Settings.from_environment({"OPENLINEAGE_URL": value})

    assert value not in str(error.value)


def test_steps_trace_as_the_variables_of_opentelemetry_configure():
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


def test_the_key_for_lineage_is_used_but_not_printed(monkeypatch: pytest.MonkeyPatch):
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


def test_without_an_address_the_key_for_lineage_is_not_read(monkeypatch: pytest.MonkeyPatch):
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


def test_a_login_in_the_server_address_is_used_but_not_printed(monkeypatch: pytest.MonkeyPatch):
    uri = "https://somebody:s3cret@mlflow.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    resources = resources_for(Settings.from_environment({"MLFLOW_TRACKING_URI": uri}))

    for name in ("mlflow", "registry"):
        resource = resources[name]
        assert isinstance(resource, MLflowResource | ModelRegistryResource)
        assert "s3cret" not in repr(resource)
        assert resource.process_config_and_initialize().tracking_uri == uri


def test_the_key_and_passwords_of_a_language_model_are_used_but_not_printed(
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


def test_dagster_displays_the_names_of_secret_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"OPENAI_API_KEY": "s3cret", "OLLAMA_HOST": "http://somebody:s3cret@llm.example"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    agent = resources_for(Settings.from_environment(variables))["agent"]
    assert isinstance(agent, AgentResource)

    default = agent.get_resource_definition().config_schema.default_value

    assert default["api_key"] == {"env": "OPENAI_API_KEY"}
    assert default["address"] == {"env": "OLLAMA_HOST"}
    assert "s3cret" not in str(default)


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


def test_variables_that_are_set_are_not_overridden_by_defaults(monkeypatch: pytest.MonkeyPatch):
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
