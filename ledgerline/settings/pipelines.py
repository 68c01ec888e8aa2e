"""Declares the variables of pipelines, the command line and `ledgerline dev`."""

from typing import Any, Literal

from ledgerline.settings.agents import AgentSettings
from ledgerline.settings.declaration import Address, Folder, Place, Whole, setting
from ledgerline.settings.shared import Port, SharedVariables, is_server


def _artifacts(data: dict[str, Any]) -> str | None:
    # A server decides where its artifacts are stored; for a database, the client decides.
    return None if is_server(data["tracking_uri"]) else str(data["home"] / "artifacts")


class PipelineVariables(SharedVariables):
    """Pipelines, runs and the model registry."""

    dagster_home: Folder = setting(
        "DAGSTER_HOME",
        "Folder of the Dagster instance.",
        lambda data: data["home"] / "dagster",
        default_text="$LEDGERLINE_HOME/dagster",
    )
    experiment: str = setting(
        "LEDGERLINE_EXPERIMENT",
        "MLflow experiment of this project's runs and training runs. The runs of another Dagster instance "
        "have their own: `ledgerline observe --dagster-home HOME --experiment NAME --namespace NAME`.",
        lambda data: data["project"].experiment,
        default_text="`experiment` of [tool.ledgerline], else ledgerline",
    )
    artifacts: Place | None = setting(
        "LEDGERLINE_ARTIFACTS",
        "Folder or URL for model files and plots of a new experiment.",
        _artifacts,
        default_text=(
            "$LEDGERLINE_HOME/artifacts, or what the MLflow server chooses if MLFLOW_TRACKING_URI is one"
        ),
    )
    data: Place = setting(
        "LEDGERLINE_DATA",
        "Folder or URL for tables: a path, s3://bucket/prefix or gs://bucket/prefix. The clients of these "
        "stores read credentials from their own variables (AWS_*, GOOGLE_APPLICATION_CREDENTIALS).",
        lambda data: str(data["home"] / "data"),
        default_text="$LEDGERLINE_HOME/data",
    )
    executor: Literal["multiprocess", "multiprocess_spawn", "in_process", "kubernetes"] = setting(
        "LEDGERLINE_EXECUTOR",
        "How steps are executed: multiprocess (forked from a warm process), multiprocess_spawn (a new "
        "interpreter for each), in_process, or kubernetes (a pod for each; the tables must then be on s3://, "
        "gs:// or a volume that all pods share).",
        "multiprocess",
    )
    max_concurrent_steps: Whole = setting(
        "LEDGERLINE_MAX_CONCURRENT_STEPS",
        "Maximum number of concurrent steps of a run; 0 means one for each core, or no limit for pods.",
        0,
        ge=0,
    )
    observer: Literal["sensors", "service"] = setting(
        "LEDGERLINE_OBSERVER",
        "Which process projects runs to traces, MLflow and lineage: sensors of the code location, or service "
        "(`ledgerline observe --follow`).",
        "sensors",
    )
    openlineage_url: Address | None = setting(
        "OPENLINEAGE_URL",
        "URL that OpenLineage events are sent to. Without it, they are only artifacts of each run in MLflow.",
        hides="password",
    )
    openlineage_api_key: str | None = setting(
        "OPENLINEAGE_API_KEY", "Bearer token for OPENLINEAGE_URL.", hides="value"
    )
    openlineage_namespace: str = setting(
        "OPENLINEAGE_NAMESPACE", "Namespace of jobs and datasets in OpenLineage events.", "ledgerline"
    )
    promotion: Literal["automatic", "approved"] = setting(
        "LEDGERLINE_PROMOTION",
        "When a model version that passes every gate is promoted: automatic (at once), or approved (after a "
        "person has approved it).",
        "automatic",
    )
    registry_poll_seconds: Whole = setting(
        "LEDGERLINE_REGISTRY_POLL_SECONDS",
        "Interval at which the sensors poll the model registry, unless a webhook notifies them earlier.",
        5,
        unit="seconds",
        ge=0,
    )
    alert_url: Address | None = setting(
        "LEDGERLINE_ALERT_URL",
        'URL that receives each change of production as JSON with a "text", as incoming webhooks of chat '
        "programs expect.",
        hides="value",
    )
    webhook_port: Port = setting(
        "LEDGERLINE_WEBHOOK_PORT", "Port on which `ledgerline registry listen` receives webhooks.", 5010
    )
    agent: AgentSettings
