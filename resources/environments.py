"""Where things are: the one module that reads the environment. It opens nothing."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import dagster as dg
from dotenv import load_dotenv

from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Projection
from ledgerline.mlflow_store.store import mlflow_page
from ledgerline.registry.promotion import Mode
from ledgerline.settings import library_defaults, variables
from ledgerline.traces.telemetry import Telemetry
from resources.agent import AgentResource
from resources.agent_settings import ADDRESS_VARIABLES, AgentSettings
from resources.alerts import AlertResource
from resources.projections import RunProjections
from resources.registry import ModelRegistryResource
from resources.request_log import RequestLogResource
from resources.storage import RecordStorage, TableStorage
from resources.tracing import OTelResource
from resources.tracking import MLflowResource

PROJECT_ROOT = Path(__file__).resolve().parent.parent

EXPERIMENT = "flight_delay"  # unless a variable names another

# What the steps of a graph hand on within a run, beside the tables.
RUN_RECORDS = ".runs"


@dataclass(frozen=True)
class Settings:
    """Everything the environment decides, read once.

    Attributes:
        home: Folder that holds all local state.
        dagster_home: Dagster's instance folder (DAGSTER_HOME).
        tracking_uri: MLflow server URL, or the database URI of a local store.
        experiment: MLflow experiment that runs, and what they train, are shown in.
        artifacts: Folder or URL of MLflow artifacts; None leaves the choice to the MLflow server.
        data: Folder or URL (s3://, gs://) of the tables.
        request_log: Folder that requests are logged in; None: they are not.
        executor: "multiprocess", "multiprocess_spawn", "in_process" or "kubernetes", as in
            pipelines/executors.py.
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
        """
        if environment is None:
            load_dotenv(PROJECT_ROOT / ".env")
            environment = os.environ
        home = variables.home(environment, PROJECT_ROOT)
        tracking_uri = variables.tracking_uri(environment, home)
        # A server chooses where its artifacts go; a bare database has nobody to choose.
        server = tracking_uri.startswith(("http://", "https://"))
        dagster_port = variables.whole_number(environment, "LEDGERLINE_DAGSTER_PORT", 3000)
        mlflow_port = variables.whole_number(environment, "LEDGERLINE_MLFLOW_PORT", 5000)
        default_artifacts = None if server else str(home / "artifacts")
        return cls(
            home=home,
            dagster_home=Path(environment.get("DAGSTER_HOME") or home / "dagster").absolute(),
            tracking_uri=tracking_uri,
            experiment=environment.get("LEDGERLINE_EXPERIMENT") or EXPERIMENT,
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


def resources_for(settings: Settings) -> dict[str, object]:
    """The resources of every job, by the names that assets ask for."""
    # The Dagster UI shows what resources are configured with; of a variable it shows the name.
    has_login = "@" in settings.tracking_uri
    tracking_uri = dg.EnvVar("MLFLOW_TRACKING_URI") if has_login else settings.tracking_uri
    mlflow = MLflowResource(
        tracking_uri=tracking_uri, experiment=settings.experiment, artifacts=settings.artifacts
    )
    otel = OTelResource(**asdict(settings.telemetry))
    return {
        "tables": TableStorage(base=settings.data),
        "records": RecordStorage(base=settings.data),
        "mlflow": mlflow,
        "otel": otel,
        "request_log": RequestLogResource(folder=settings.request_log),
        "agent": _agent(settings.agent),
        "run_records": RecordStorage(base=f"{settings.data.rstrip('/')}/{RUN_RECORDS}"),
        "projections": _projections(settings, otel, mlflow),
        "registry": ModelRegistryResource(
            tracking_uri=tracking_uri,
            promotion=settings.promotion,
            poll_seconds=settings.registry_poll_seconds,
        ),
        # Whoever knows the address may post to it: the Dagster UI shows the variable's name only.
        "alerts": AlertResource(url=dg.EnvVar("LEDGERLINE_ALERT_URL") if settings.has_alerts else None),
    }


def _agent(settings: AgentSettings) -> AgentResource:
    # As above: what may hold a password is shown by the name of its variable.
    fields: dict[str, object] = asdict(settings)
    del fields["executions"]  # the executor's affair
    if settings.api_key is not None:
        fields["api_key"] = dg.EnvVar("OPENAI_API_KEY")
    if "@" in settings.address:
        fields["address"] = dg.EnvVar(ADDRESS_VARIABLES[settings.provider])
    if settings.search_url is not None and "@" in settings.search_url:
        fields["search_url"] = dg.EnvVar("LEDGERLINE_SEARCH_URL")
    return AgentResource.model_validate(fields)


def registry_of(settings: Settings) -> ModelRegistryResource:
    """The model registry, for who is no Dagster process."""
    return ModelRegistryResource(
        tracking_uri=settings.tracking_uri,
        promotion=settings.promotion,
        poll_seconds=settings.registry_poll_seconds,
    )


@contextmanager
def agent_of(settings: Settings) -> Iterator[AgentResource]:
    """What opens agents, for who is no Dagster process."""
    with _agent(settings.agent).process_config_and_initialize_cm() as initialised:
        yield initialised


def mlflow_of(settings: Settings) -> MLflowResource:
    """MLflow, for who is no Dagster process."""
    return MLflowResource(
        tracking_uri=settings.tracking_uri, experiment=settings.experiment, artifacts=settings.artifacts
    )


def projections_of(settings: Settings) -> Sequence[Projection]:
    """Where runs are shown, for who is no Dagster process."""
    resource = resources_for(settings)["projections"]
    assert isinstance(resource, RunProjections)  # noqa: S101 (just made)
    with resource.process_config_and_initialize_cm() as initialised:
        return initialised.all()


def _projections(settings: Settings, otel: OTelResource, mlflow: MLflowResource) -> RunProjections:
    has_key = settings.openlineage_url is not None and settings.has_openlineage_key
    return RunProjections(
        otel=otel,
        mlflow=mlflow,
        dagster_page=settings.links.dagster,
        mlflow_page=settings.links.mlflow,
        trace_page=settings.links.trace,
        openlineage_url=settings.openlineage_url,
        openlineage_api_key=dg.EnvVar("OPENLINEAGE_API_KEY") if has_key else None,
        openlineage_namespace=settings.openlineage_namespace,
    )


def set_library_defaults() -> None:
    """Tell libraries what they must know before this project's modules are imported."""
    # Backfill policies and time window mappings are in beta; the version of Dagster is pinned.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    library_defaults.set_in(os.environ)


def export(settings: Settings) -> None:
    """Put the settings into this process's environment, for the processes it starts."""
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
