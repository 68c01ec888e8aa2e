"""Where things are: the one module that reads the environment. It opens nothing."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import dagster as dg
from dotenv import load_dotenv

from ledgerline.dagster.agent_settings import AgentSettings
from ledgerline.ledger.links import Links
from ledgerline.mlflow_store.store import mlflow_page
from ledgerline.registry.promotion import Mode
from ledgerline.settings import library_defaults, variables
from ledgerline.settings.project import VARIABLE, Project
from ledgerline.traces.telemetry import Telemetry


@dataclass(frozen=True)
class Settings:
    """Everything the environment decides, read once.

    Attributes:
        project: The project that they are of.
        home: Folder that holds all local state.
        dagster_home: Dagster's instance folder (DAGSTER_HOME).
        tracking_uri: MLflow server URL, or the database URI of a local store.
        experiment: MLflow experiment that runs, and what they train, are shown in.
        artifacts: Folder or URL of MLflow artifacts; None leaves the choice to the MLflow server.
        data: Folder or URL (s3://, gs://) of the tables.
        request_log: Folder that requests are logged in; None: they are not.
        executor: "multiprocess", "multiprocess_spawn", "in_process" or "kubernetes", as in
            dagster/executors.py.
        max_concurrent_steps: Steps of one run at the same time; 0 means one per core, or all steps if they
            are pods.
        dagster_port: Port of the Dagster UI under `ledgerline dev`.
        mlflow_port: Port of the MLflow UI under `ledgerline dev`.
        serving_port: Port of the models under `ledgerline dev`.
        telemetry: Which traces are made, and where they go (OTEL_*).
        links: Where people look at runs.
        observer: Who shows runs elsewhere: "sensors" of the code location, or "service" (`ledgerline observe
            --follow`).
        openlineage_url: Where lineage events are sent (OPENLINEAGE_URL); None keeps them in MLflow.
        has_openlineage_key: Whether there is a bearer token for that (OPENLINEAGE_API_KEY).
        openlineage_namespace: Namespace of jobs and datasets in lineage events.
        promotion: Whether versions that keep every rule are promoted at once, or once a person approved.
        registry_poll_seconds: How often sensors look at the registry, unless a webhook wakes them.
        has_alerts: Whether there is an address to tell of changes of production (LEDGERLINE_ALERT_URL).
        webhook_secret: What MLflow signs its webhooks with; None: none are taken.
        webhook_port: Where `ledgerline registry listen` takes them.
        agent: Which language model agents use, and how far they may go.
    """

    project: Project
    home: Path
    dagster_home: Path
    tracking_uri: str
    experiment: str
    artifacts: str | None
    data: str
    request_log: str | None
    executor: str
    max_concurrent_steps: int
    dagster_port: int
    mlflow_port: int
    serving_port: int
    telemetry: Telemetry
    links: Links
    observer: str
    openlineage_url: str | None
    openlineage_namespace: str
    promotion: Mode
    registry_poll_seconds: int
    has_alerts: bool
    webhook_secret: str | None = field(repr=False)
    webhook_port: int
    agent: AgentSettings
    has_openlineage_key: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings.

        Args:
            environment: Variables to read; without it, the process environment over `.env`.

        Raises:
            ValueError: A variable has a value that cannot be used; the message names it.
            ProjectError: The pyproject.toml of the project cannot be used.
        """
        project = Project.found(os.environ if environment is None else environment)
        if environment is None:
            load_dotenv(project.root / ".env")
            environment = os.environ
        home = variables.home(environment, project.root)
        tracking_uri = variables.tracking_uri(environment, home)
        # A server chooses where its artifacts go; a bare database has nobody to choose.
        server = tracking_uri.startswith(("http://", "https://"))
        dagster_port = variables.whole_number(environment, "LEDGERLINE_DAGSTER_PORT", 3000)
        mlflow_port = variables.whole_number(environment, "LEDGERLINE_MLFLOW_PORT", 5000)
        default_artifacts = None if server else str(home / "artifacts")
        return cls(
            project=project,
            home=home,
            dagster_home=Path(environment.get("DAGSTER_HOME") or home / "dagster").absolute(),
            tracking_uri=tracking_uri,
            experiment=environment.get("LEDGERLINE_EXPERIMENT") or project.experiment,
            artifacts=variables.place(environment.get("LEDGERLINE_ARTIFACTS")) or default_artifacts,
            data=variables.place(environment.get("LEDGERLINE_DATA")) or str(home / "data"),
            request_log=variables.request_log(environment, home),
            executor=variables.choice(
                environment,
                "LEDGERLINE_EXECUTOR",
                ("multiprocess", "multiprocess_spawn", "in_process", "kubernetes"),
            ),
            max_concurrent_steps=variables.whole_number(environment, "LEDGERLINE_MAX_CONCURRENT_STEPS", 0),
            dagster_port=dagster_port,
            mlflow_port=mlflow_port,
            serving_port=variables.whole_number(environment, "LEDGERLINE_SERVING_PORT", 8080),
            telemetry=Telemetry.from_environment(environment),
            links=Links.from_environment(
                environment, dagster_port, mlflow_page(environment, tracking_uri, mlflow_port)
            ),
            observer=variables.choice(environment, "LEDGERLINE_OBSERVER", ("sensors", "service")),
            openlineage_url=variables.address(environment, "OPENLINEAGE_URL"),
            has_openlineage_key=bool(environment.get("OPENLINEAGE_API_KEY")),
            openlineage_namespace=environment.get("OPENLINEAGE_NAMESPACE") or "ledgerline",
            promotion=Mode(
                variables.choice(environment, "LEDGERLINE_PROMOTION", tuple(mode.value for mode in Mode))
            ),
            registry_poll_seconds=variables.whole_number(environment, "LEDGERLINE_REGISTRY_POLL_SECONDS", 5),
            has_alerts=variables.address(environment, "LEDGERLINE_ALERT_URL") is not None,
            webhook_secret=environment.get("LEDGERLINE_WEBHOOK_SECRET") or None,
            webhook_port=variables.whole_number(environment, "LEDGERLINE_WEBHOOK_PORT", 5010),
            agent=AgentSettings.from_environment(environment, home),
        )


def set_library_defaults() -> None:
    """Tell libraries what they must know before this project's modules are imported."""
    # Backfill policies and time window mappings are in beta; the version of Dagster is pinned.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    library_defaults.set_in(os.environ)


def export(settings: Settings) -> None:
    """Put the settings into this process's environment, for the processes it starts."""
    os.environ[VARIABLE] = str(settings.project.root)
    os.environ["LEDGERLINE_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    os.environ["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    os.environ["LEDGERLINE_DATA"] = settings.data
    os.environ["LEDGERLINE_REQUEST_LOG"] = settings.request_log or variables.OFF
    if settings.artifacts is not None:
        os.environ["LEDGERLINE_ARTIFACTS"] = settings.artifacts
    set_library_defaults()


def export_of_other_instance(dagster_home: Path, service: str) -> None:
    """Put into this process's environment what makes it read another project's instance.

    Args:
        dagster_home: Its folder, which its own configuration may name by the variable.
        service: The name of what its traces are of, unless a variable says it.
    """
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ.setdefault("OTEL_SERVICE_NAME", service)


def environment_with(additions: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and these additions, for a process it starts."""
    return os.environ | dict(additions)
