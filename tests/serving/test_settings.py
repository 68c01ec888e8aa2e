"""Tests the settings of serving: defaults, the effect of each variable, and refused values."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerline.ledger.links import Links
from ledgerline.serving import settings
from ledgerline.serving.settings import Followed, ServingSettings
from ledgerline.settings.declaration import SettingsError
from ledgerline.traces.telemetry import Telemetry
from tests.project import PROJECT_ROOT

MEGABYTE = 1024 * 1024


def test_without_any_variable_the_project_s_models_are_served_on_this_machine_only() -> None:
    home = PROJECT_ROOT / ".ledgerline"

    settings = ServingSettings.from_environment({})

    assert settings.models == (
        Followed("flight_delay", "production"),
        Followed("delay_minutes", "production"),
    )
    assert (settings.host, settings.serving_port, settings.tokens) == ("127.0.0.1", 8080, ())
    assert settings.tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert (settings.poll_seconds, settings.webhook_secret) == (1, None)
    assert (settings.unpickled, settings.signature, settings.shadow_share) == (frozenset(), "same", 0)
    assert settings.cache == home / "serving" / "models"
    assert settings.request_log == home / "serving" / "requests"
    assert (settings.request_log_bytes, settings.redacted) == (512 * MEGABYTE, frozenset())
    assert (settings.body_bytes, settings.body_seconds, settings.max_rows) == (16 * MEGABYTE, 10, 10_000)
    assert (settings.timeout_seconds, settings.max_requests, settings.traces_per_second) == (30, 256, 2)
    assert settings.telemetry == Telemetry()
    assert settings.links == Links(
        dagster="http://127.0.0.1:3000",
        mlflow="http://127.0.0.1:5000",
        trace="http://127.0.0.1:5000/#/experiments/{experiment_id}/traces/{mlflow_trace_id}",
    )


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("MLFLOW_TRACKING_URI", "https://mlflow.example", "tracking_uri", "https://mlflow.example"),
        ("LEDGERLINE_WEBHOOK_SECRET", "signed", "webhook_secret", "signed"),
        (
            "LEDGERLINE_SERVING_MODELS",
            "delay@staging, cancellation",
            "models",
            (Followed("delay", "staging"), Followed("cancellation", "production")),
        ),
        ("LEDGERLINE_SERVING_HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104
        ("LEDGERLINE_SERVING_PORT", "0", "serving_port", 0),
        ("LEDGERLINE_SERVING_TOKENS", "one, two,", "tokens", ("one", "two")),
        ("LEDGERLINE_SERVING_POLL_SECONDS", "0.5", "poll_seconds", 0.5),
        ("LEDGERLINE_SERVING_SIGNATURE", "any", "signature", "any"),
        ("LEDGERLINE_SERVING_UNPICKLE", "delay", "unpickled", frozenset({"delay"})),
        ("LEDGERLINE_SERVING_SHADOW_SHARE", "0.25", "shadow_share", 0.25),
        ("LEDGERLINE_SERVING_CACHE", "/srv/cache", "cache", Path("/srv/cache")),
        ("LEDGERLINE_SERVING_BODY_MEGABYTES", "2", "body_bytes", 2 * MEGABYTE),
        ("LEDGERLINE_SERVING_BODY_SECONDS", "3", "body_seconds", 3),
        ("LEDGERLINE_SERVING_ROWS", "4", "max_rows", 4),
        ("LEDGERLINE_SERVING_SECONDS", "5", "timeout_seconds", 5),
        ("LEDGERLINE_SERVING_REQUESTS", "6", "max_requests", 6),
        ("LEDGERLINE_SERVING_TRACES_PER_SECOND", "7", "traces_per_second", 7),
        ("LEDGERLINE_REQUEST_LOG", "/srv/requests", "request_log", Path("/srv/requests")),
        ("LEDGERLINE_REQUEST_LOG_MEGABYTES", "8", "request_log_bytes", 8 * MEGABYTE),
        ("LEDGERLINE_REQUEST_LOG_REDACTED", "origin,dest", "redacted", frozenset({"origin", "dest"})),
    ],
)
def test_each_variable_changes_one_thing(name: str, value: str, attribute: str, expected: object) -> None:
    assert getattr(ServingSettings.from_environment({name: value}), attribute) == expected


def test_links_and_traces_follow_their_variables() -> None:
    settings = ServingSettings.from_environment(
        {
            "LEDGERLINE_DAGSTER_PORT": "3001",
            "MLFLOW_TRACKING_URI": "https://somebody:s3cret@mlflow.example",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4318",
            "LEDGERLINE_JAEGER_URL": "http://jaeger.example",
        }
    )

    assert settings.telemetry == Telemetry(endpoint="http://collector.example:4318/v1/traces")
    assert settings.links == Links(
        dagster="http://127.0.0.1:3001",
        mlflow="https://somebody:***@mlflow.example",
        trace="http://jaeger.example/trace/{trace_id}",
    )


def test_secrets_are_not_printed() -> None:
    found = ServingSettings.from_environment(
        {"LEDGERLINE_SERVING_TOKENS": "t0ken", "LEDGERLINE_WEBHOOK_SECRET": "s3cret"}
    )

    assert "t0ken" not in repr(found)
    assert "s3cret" not in repr(found)


def test_folders_become_absolute_and_requests_need_not_be_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {
        "LEDGERLINE_HOME": "state",
        "LEDGERLINE_SERVING_CACHE": "cache",
        "LEDGERLINE_SERVING_MODELS": "delay",
    }

    logged = ServingSettings.from_environment(relative | {"LEDGERLINE_REQUEST_LOG": "requests"})
    not_logged = ServingSettings.from_environment(relative | {"LEDGERLINE_REQUEST_LOG": "off"})

    assert logged.cache == tmp_path / "cache"
    assert logged.request_log == tmp_path / "requests"
    assert not_logged.request_log is None
    assert not_logged.tracking_uri == f"sqlite:///{tmp_path}/state/mlflow.db"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LEDGERLINE_SERVING_MODELS", ",", "name at least one model, and each of them once."),
        (
            "LEDGERLINE_SERVING_MODELS",
            "delay,delay@staging",
            "name at least one model, and each of them once.",
        ),
        ("LEDGERLINE_SERVING_MODELS", "delay@", "write name or name@alias instead of 'delay@'."),
        ("LEDGERLINE_SERVING_MODELS", "@staging", "write name or name@alias instead of '@staging'."),
        (
            "LEDGERLINE_SERVING_MODELS",
            "models:/delay",
            "write name or name@alias instead of 'models:/delay'.",
        ),
        (
            "LEDGERLINE_SERVING_PORT",
            "http",
            "is 'http'; set it to a whole number from 0 to 65535 (default 8080).",
        ),
        ("LEDGERLINE_SERVING_ROWS", "-1", "is '-1'; set it to a whole number from 0 on (default 10000)."),
        ("LEDGERLINE_SERVING_SIGNATURE", "none", "is 'none'; set it to one of: same, any (default same)."),
        ("LEDGERLINE_SERVING_SHADOW_SHARE", "1.5", "set it to a number from 0 to 1 (default 0)."),
        ("LEDGERLINE_SERVING_SHADOW_SHARE", "nan", "set it to a number from 0 to 1 (default 0)."),
        ("LEDGERLINE_SERVING_POLL_SECONDS", "1s", "set it to a number from 0 to 3600 (default 1)."),
        ("LEDGERLINE_REQUEST_LOG_MEGABYTES", "0.5", "set it to a whole number from 0 on (default 512)."),
        ("LEDGERLINE_REQUEST_LOG", "s3://bucket/log", "set it to a folder of this machine, or off."),
        ("LEDGERLINE_TRACE_URL", "http://t/{run}", "it may have {trace_id}"),
        ("LEDGERLINE_HOME", "/srv/a#b", "choose a folder without ?, # and %"),
    ],
)
def test_a_wrong_value_is_named_with_the_allowed_ones(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} ") as error:
        ServingSettings.from_environment({name: value})

    assert expected in str(error.value)


def test_mlflow_does_not_retry_unless_its_variables_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in settings.IMPATIENT:
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")

    settings.prepare_libraries()

    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_reading_the_settings_imports_nothing_heavy_and_creates_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from ledgerline.serving.settings import ServingSettings; "
        "ServingSettings.from_environment(); "
        "print(sorted({'mlflow', 'pandas', 'sklearn', 'fastapi', 'dagster'} & set(sys.modules)))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LEDGERLINE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert child.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
