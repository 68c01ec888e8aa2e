"""Tests variables that are set for libraries before they are imported."""

import pytest

from ledgerline.settings import library_defaults


def test_defaults_for_libraries_leave_variables_that_are_set() -> None:
    environment = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "7", "MLFLOW_DISABLE_TELEMETRY": ""}

    library_defaults.set_in(environment)

    assert environment == library_defaults.MLFLOW_DEFAULTS | {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
        "MLFLOW_DISABLE_TELEMETRY": "",
    }


@pytest.mark.parametrize("value", ["many", "-1", "1.5"])
def test_a_limit_that_opentelemetry_could_not_read_is_removed(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"OTEL_SPAN_EVENT_COUNT_LIMIT": value, "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": " 8 "}

    library_defaults.set_in(environment)

    assert "OTEL_SPAN_EVENT_COUNT_LIMIT" not in environment
    assert environment["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"] == " 8 "
    assert [record.getMessage() for record in caplog.records] == [
        f"OTEL_SPAN_EVENT_COUNT_LIMIT is '{value}', which is not a whole number; it is ignored."
    ]
