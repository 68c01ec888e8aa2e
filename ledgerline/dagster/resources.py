"""Makes the resources of a project from its settings, for its definitions and for other processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import dagster as dg

from ledgerline.dagster.agent import AgentResource
from ledgerline.dagster.alerts import AlertResource
from ledgerline.dagster.projections import RunProjections
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.request_log import RequestLogResource
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import RecordStorage, TableStorage
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource, connect
from ledgerline.ledger.projection import Projection
from ledgerline.registry.promotion import Mode
from ledgerline.registry.registry import Registry
from ledgerline.settings.agents import ADDRESS_VARIABLES

# The functions that follow make resources for definitions. The Dagster UI shows the configuration of
# resources. For an environment variable it shows only the name, so passwords and tokens are passed as
# variables.


def library_resources(settings: Settings) -> dict[str, object]:
    """Return the resources of the steps of a project, by name: storage, tracking, tracing, the registry."""
    return {
        "tables": TableStorage(base=settings.data),
        "records": RecordStorage(base=settings.data),
        "mlflow": mlflow(settings),
        "otel": otel(settings),
        "registry": registry(settings),
        "request_log": RequestLogResource(folder=settings.request_log and str(settings.request_log)),
        "alerts": alerts(settings),
    }


def mlflow(settings: Settings) -> MLflowResource:
    """Return the resource for training runs in MLflow."""
    return MLflowResource(
        tracking_uri=_tracking_uri(settings), experiment=settings.experiment, artifacts=settings.artifacts
    )


def otel(settings: Settings) -> OTelResource:
    """Return the resource for spans inside steps."""
    return OTelResource(**asdict(settings.telemetry))


def registry(settings: Settings) -> ModelRegistryResource:
    """Return the resource for the model registry."""
    return ModelRegistryResource(
        tracking_uri=_tracking_uri(settings),
        promotion=Mode(settings.promotion),
        poll_seconds=settings.registry_poll_seconds,
    )


def alerts(settings: Settings) -> AlertResource:
    """Return the resource that sends alerts when production changes."""
    return AlertResource(url=dg.EnvVar("LEDGERLINE_ALERT_URL") if settings.alert_url is not None else None)


def agent(settings: Settings) -> AgentResource:
    """Return the resource that opens agents."""
    names = AgentResource.model_fields.keys()
    fields = {name: getattr(settings.agent, name) for name in names if hasattr(settings.agent, name)}
    if settings.agent.api_key is not None:
        fields["api_key"] = dg.EnvVar("OPENAI_API_KEY")
    if "@" in settings.agent.address:
        fields["address"] = dg.EnvVar(ADDRESS_VARIABLES[settings.agent.provider])
    if settings.agent.search_url is not None and "@" in settings.agent.search_url:
        fields["search_url"] = dg.EnvVar("LEDGERLINE_SEARCH_URL")
    return AgentResource.model_validate(fields)


def projections(settings: Settings) -> RunProjections:
    """Return the resource that exports runs to the enabled projections."""
    has_key = settings.openlineage_url is not None and settings.openlineage_api_key is not None
    return RunProjections(
        otel=otel(settings),
        mlflow=mlflow(settings),
        dagster_page=settings.links.dagster,
        mlflow_page=settings.links.mlflow,
        trace_page=settings.links.trace,
        openlineage_url=settings.openlineage_url,
        openlineage_api_key=dg.EnvVar("OPENLINEAGE_API_KEY") if has_key else None,
        openlineage_namespace=settings.openlineage_namespace,
    )


def _tracking_uri(settings: Settings) -> str:
    has_login = "@" in settings.tracking_uri
    return dg.EnvVar("MLFLOW_TRACKING_URI") if has_login else settings.tracking_uri


# The functions that follow are for processes outside Dagster.


def registry_of(settings: Settings) -> Registry:
    """Open the model registry.

    Raises:
        PermanentFailure: MLflow cannot be reached.
    """
    return Registry(connect(settings.tracking_uri))


@contextmanager
def agent_of(settings: Settings) -> Iterator[AgentResource]:
    """Initialise the resource that opens agents."""
    with agent(settings).process_config_and_initialize_cm() as initialised:
        yield initialised


def mlflow_of(settings: Settings) -> MLflowResource:
    """Return the resource for MLflow, with values instead of references to variables."""
    return MLflowResource(
        tracking_uri=settings.tracking_uri, experiment=settings.experiment, artifacts=settings.artifacts
    )


def projections_of(settings: Settings) -> Sequence[Projection]:
    """Return the enabled projections."""
    with projections(settings).process_config_and_initialize_cm() as initialised:
        return initialised.all()
