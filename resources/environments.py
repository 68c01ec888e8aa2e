"""Where things are: the one module that reads the environment. It opens nothing."""

import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import dagster as dg
from dotenv import load_dotenv

from observability.links import JAEGER_TRACE, MLFLOW_TRACE, Links
from observability.projection import Projection
from observability.telemetry import Telemetry
from registry.promotion import Mode
from registry.store import without_password
from resources.alerts import AlertResource
from resources.projections import RunProjections
from resources.registry import ModelRegistryResource
from resources.storage import RecordStorage, TableStorage
from resources.tracing import OTelResource
from resources.tracking import MLflowResource

PROJECT_ROOT = Path(__file__).resolve().parent.parent

EXPERIMENT = "flight_delay"

OTEL_LIMIT = re.compile(r"OTEL_\w+_LIMIT")

logger = logging.getLogger(__name__)

# What MLflow must be told before it is imported. A value that is already set is kept.
MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # One call against a dead server blocks for 247 s with MLflow's own numbers.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # It would print the addresses of runs that steps and observers write.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Progress bars of artifact transfers would end up in the step logs.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Settings:
    """Everything the environment decides, read once.

    Attributes:
        home: Folder that holds all local state.
        dagster_home: Dagster's instance folder (DAGSTER_HOME).
        tracking_uri: MLflow server URL, or the database URI of a local store.
        artifacts: Folder or URL of MLflow artifacts; None leaves the choice to the MLflow server.
        data: Folder or URL (s3://, gs://) of the tables.
        executor: "multiprocess", "multiprocess_spawn" or "in_process" (pipelines/executors.py).
        max_concurrent_steps: Steps of one run at the same time; 0 means one per core.
        dagster_port: Port of the Dagster UI under `ledgerline dev`.
        mlflow_port: Port of the MLflow UI under `ledgerline dev`.
        telemetry: Which traces are made, and where they go (OTEL_*).
        links: Where people look at runs.
        observer: Who shows runs elsewhere: "sensors" of the code location, or "service" (`ledgerline observe
            --follow`).
        openlineage_url: Where lineage events are sent (OPENLINEAGE_URL); None keeps them in MLflow.
        openlineage_namespace: Namespace of jobs and datasets in lineage events.
        promotion: Whether versions that keep every rule are promoted at once, or once a person approved.
        registry_poll_seconds: How often sensors look at the registry, unless a webhook wakes them.
        has_alerts: Whether there is an address to tell of changes of production (LEDGERLINE_ALERT_URL).
        webhook_secret: What MLflow signs its webhooks with; None: none are taken.
        webhook_port: Where `ledgerline registry listen` takes them.
    """

    home: Path
    dagster_home: Path
    tracking_uri: str
    artifacts: str | None
    data: str
    executor: str
    max_concurrent_steps: int
    dagster_port: int
    mlflow_port: int
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
        home = Path(environment.get("LEDGERLINE_HOME") or PROJECT_ROOT / ".ledgerline").absolute()
        if any(character in str(home) for character in "?#%"):
            raise ValueError(
                f"LEDGERLINE_HOME is {str(home)!r}; choose a folder without ?, # and %, which the address "
                "of the MLflow database cannot hold."
            )
        tracking_uri = environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlflow.db"
        # A server chooses where its artifacts go; a bare database has nobody to choose.
        server = tracking_uri.startswith(("http://", "https://"))
        dagster_port = _whole_number(environment, "LEDGERLINE_DAGSTER_PORT", 3000)
        mlflow_port = _whole_number(environment, "LEDGERLINE_MLFLOW_PORT", 5000)
        default_artifacts = None if server else str(home / "artifacts")
        return cls(
            home=home,
            dagster_home=Path(environment.get("DAGSTER_HOME") or home / "dagster").absolute(),
            tracking_uri=tracking_uri,
            artifacts=_place(environment.get("LEDGERLINE_ARTIFACTS")) or default_artifacts,
            data=_place(environment.get("LEDGERLINE_DATA")) or str(home / "data"),
            executor=_choice(
                environment,
                "LEDGERLINE_EXECUTOR",
                ("multiprocess", "multiprocess_spawn", "in_process"),
            ),
            max_concurrent_steps=_whole_number(environment, "LEDGERLINE_MAX_CONCURRENT_STEPS", 0),
            dagster_port=dagster_port,
            mlflow_port=mlflow_port,
            telemetry=Telemetry.from_environment(environment),
            links=_links(environment, tracking_uri if server else None, dagster_port, mlflow_port),
            observer=_choice(environment, "LEDGERLINE_OBSERVER", ("sensors", "service")),
            openlineage_url=_address(environment, "OPENLINEAGE_URL"),
            openlineage_namespace=environment.get("OPENLINEAGE_NAMESPACE") or "ledgerline",
            promotion=Mode(_choice(environment, "LEDGERLINE_PROMOTION", tuple(mode.value for mode in Mode))),
            registry_poll_seconds=_whole_number(environment, "LEDGERLINE_REGISTRY_POLL_SECONDS", 5),
            has_alerts=_address(environment, "LEDGERLINE_ALERT_URL") is not None,
            webhook_secret=environment.get("LEDGERLINE_WEBHOOK_SECRET") or None,
            webhook_port=_whole_number(environment, "LEDGERLINE_WEBHOOK_PORT", 5010),
        )


def resources_for(settings: Settings) -> dict[str, object]:
    """The resources of every job, by the names that assets ask for."""
    # The Dagster UI shows what resources are configured with; of a variable it shows the name.
    has_login = "@" in settings.tracking_uri
    tracking_uri = dg.EnvVar("MLFLOW_TRACKING_URI") if has_login else settings.tracking_uri
    mlflow = MLflowResource(tracking_uri=tracking_uri, experiment=EXPERIMENT, artifacts=settings.artifacts)
    otel = OTelResource(**asdict(settings.telemetry))
    return {
        "tables": TableStorage(base=settings.data),
        "records": RecordStorage(base=settings.data),
        "mlflow": mlflow,
        "otel": otel,
        "projections": _projections(settings, otel, mlflow),
        "registry": ModelRegistryResource(
            tracking_uri=tracking_uri,
            promotion=settings.promotion,
            poll_seconds=settings.registry_poll_seconds,
        ),
        # Whoever knows the address may post to it: the Dagster UI shows the variable's name only.
        "alerts": AlertResource(url=dg.EnvVar("LEDGERLINE_ALERT_URL") if settings.has_alerts else None),
    }


def registry_of(settings: Settings) -> ModelRegistryResource:
    """The model registry, for who is no Dagster process."""
    return ModelRegistryResource(
        tracking_uri=settings.tracking_uri,
        promotion=settings.promotion,
        poll_seconds=settings.registry_poll_seconds,
    )


def projections_of(settings: Settings) -> Sequence[Projection]:
    """Where runs are shown, for who is no Dagster process."""
    resource = resources_for(settings)["projections"]
    assert isinstance(resource, RunProjections)  # noqa: S101 (just made)
    with resource.process_config_and_initialize_cm() as initialised:
        return initialised.all()


def _projections(settings: Settings, otel: OTelResource, mlflow: MLflowResource) -> RunProjections:
    has_key = settings.openlineage_url is not None and bool(os.environ.get("OPENLINEAGE_API_KEY"))
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
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # OpenTelemetry raises when it is imported, and MLflow imports it: a wrong limit would fail every step.
    for name, value in list(os.environ.items()):
        if OTEL_LIMIT.fullmatch(name) and value.strip() and not value.strip().isdecimal():
            logger.warning("%s is %r, no whole number; it is passed over.", name, value)
            del os.environ[name]


def export(settings: Settings) -> None:
    """Put the settings into this process's environment, for the processes it starts."""
    os.environ["LEDGERLINE_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    os.environ["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    os.environ["LEDGERLINE_DATA"] = settings.data
    if settings.artifacts is not None:
        os.environ["LEDGERLINE_ARTIFACTS"] = settings.artifacts
    set_library_defaults()


def environment_with(additions: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and these additions, for a process it starts."""
    return os.environ | dict(additions)


def _links(
    environment: Mapping[str, str], mlflow_server: str | None, dagster_port: int, mlflow_port: int
) -> Links:
    # Without addresses of its own a deployment is looked at where `ledgerline dev` puts it.
    dagster = environment.get("LEDGERLINE_DAGSTER_URL") or f"http://127.0.0.1:{dagster_port}"
    mlflow = environment.get("LEDGERLINE_MLFLOW_URL") or mlflow_server or f"http://127.0.0.1:{mlflow_port}"
    mlflow = without_password(mlflow).rstrip("/")
    trace = environment.get("LEDGERLINE_TRACE_URL")
    if trace is None and (jaeger := environment.get("LEDGERLINE_JAEGER_URL")):
        trace = jaeger.rstrip("/") + JAEGER_TRACE
    links = Links(dagster.rstrip("/"), mlflow, trace or mlflow + MLFLOW_TRACE)
    try:
        links.trace_page("00000000-0000-0000-0000-000000000000", "0")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"LEDGERLINE_TRACE_URL is {trace!r}; it may have {{trace_id}}, {{mlflow_trace_id}} and "
            "{experiment_id}, and no other braces."
        ) from error
    return links


def _place(value: str | None) -> str | None:
    """A URL as it is, a folder as an absolute path: processes start in different folders."""
    return value if not value or "://" in value else str(Path(value).absolute())


def _choice(environment: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = environment.get(name) or allowed[0]
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; set it to one of: {', '.join(allowed)}.")
    return value


def _address(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name) or None
    if value is not None and not re.match(r"https?://[^/\s]", value):
        # Not shown: what is in the wrong place may be a password.
        raise ValueError(f"{name} is no address; set it to one like http://127.0.0.1:5000.")
    return value


def _whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r}; set it to a whole number (default {default}).")
    return int(value)
