"""The dagster.yaml that Dagster's chart renders from docker/kubernetes/dagster-values.yaml.

A stand-in for the chart's own template, for the values that are set: it writes the same keys.
"""

import re
from typing import Any

from tests.docker.kubernetes_files import values


def snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def renamed(part: dict[str, Any]) -> dict[str, Any]:
    """With the names that dagster.yaml has for the keys."""
    return {snake_case(key): value for key, value in part.items()}


def run_launcher() -> dict[str, Any]:
    return values()["runLauncher"]["config"]["customRunLauncher"]


def storage() -> dict[str, Any]:
    declared = values()["postgresql"]
    return {
        "username": declared["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": declared["postgresqlHost"],
        "db_name": declared["postgresqlDatabase"],
        "port": declared["service"]["port"],
        "params": {},  # the chart's default
        "scheme": declared["postgresqlScheme"],
    }


def instance() -> dict[str, Any]:
    """All of it."""
    daemon = values()["dagsterDaemon"]

    def stored(name: str, kind: str) -> dict[str, Any]:
        return {
            "module": f"dagster_postgres.{name}",
            "class": kind,
            "config": {"postgres_db": storage()},
        }

    return {
        "schedule_storage": stored("schedule_storage", "PostgresScheduleStorage"),
        "run_storage": stored("run_storage", "PostgresRunStorage"),
        "event_log_storage": stored("event_log", "PostgresEventLogStorage"),
        "run_launcher": run_launcher(),
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "compute_logs": values()["computeLogManager"]["config"]["customComputeLogManager"],
        "run_monitoring": renamed(daemon["runMonitoring"]),
        "run_retries": renamed(daemon["runRetries"]),
        "sensors": renamed(daemon["sensors"]),
        "schedules": renamed(daemon["schedules"]),
        "telemetry": values()["telemetry"],
        "retention": {name: renamed(values()["retention"][name]) for name in ("schedule", "sensor")},
        **values()["additionalInstanceConfig"],
    }
