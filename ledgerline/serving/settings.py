"""What the environment decides for serving, read once: the only module of serving that reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dotenv import load_dotenv

from ledgerline.ledger.links import Links
from ledgerline.mlflow_store.store import mlflow_page
from ledgerline.registry.stages import PRODUCTION
from ledgerline.settings import library_defaults, variables
from ledgerline.settings.project import Project
from ledgerline.traces.telemetry import Telemetry

# The registry is asked again a second later anyway: no call is worth waiting for.
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Followed:
    """A model to serve.

    Attributes:
        name: The registered model.
        alias: The version that carries it is served.
    """

    name: str
    alias: str = PRODUCTION

    @classmethod
    def parsed(cls, text: str) -> Self:
        """From `name` or `name@alias`.

        Raises:
            ValueError: It is neither.
        """
        name, at, alias = text.partition("@")
        # It becomes the name of a folder.
        if not name or (at and not alias) or "/" in text or name.startswith("."):
            raise ValueError(f"LEDGERLINE_SERVING_MODELS has {text!r}; write name, or name@alias.")
        return cls(name, alias or PRODUCTION)


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may ask for.

    Attributes:
        body_bytes: Size of a body.
        body_seconds: How long a body may take to come.
        rows: Rows of a request.
        seconds: How long a client waits for an answer.
        requests: Requests that are answered at the same time.
    """

    body_bytes: int
    body_seconds: float
    rows: int
    seconds: float
    requests: int


@dataclass(frozen=True)
class ServingSettings:
    """Everything the environment decides.

    Attributes:
        models: What is served; the first answers where a client names none.
        host: Address to listen on.
        port: Port to listen on.
        tracking_uri: URL of an MLflow server, or URI of its database.
        poll_seconds: How often the registry is asked, unless a webhook says when.
        webhook_secret: What MLflow signs its webhooks with; None: none are taken.
        tokens: What clients must show one of; empty: nothing.
        unpickled: Models that may be loaded by running code in their files.
        allow_other_clients: Whether a version may take over that clients of the one before cannot use.
        shadow_share: Share of the requests that the version in staging is asked, too; 0: none.
        cache: Folder of the versions that were served last.
        request_log: Folder of the request log; None: requests are not logged.
        request_log_bytes: How much of it is kept.
        redacted: Columns that are not written into it.
        traces_per_second: How many traces of their own, where the caller has none, are begun in a second.
        limits: What requests may ask for.
        telemetry: Where traces go (OTEL_*).
        links: Where people look at runs.
    """

    models: tuple[Followed, ...]
    host: str
    port: int
    tracking_uri: str
    poll_seconds: float
    webhook_secret: str | None = field(repr=False)
    tokens: tuple[str, ...] = field(repr=False)
    unpickled: frozenset[str]
    allow_other_clients: bool
    shadow_share: float
    cache: Path
    request_log: Path | None
    request_log_bytes: int
    redacted: frozenset[str]
    traces_per_second: float
    limits: Limits
    telemetry: Telemetry
    links: Links

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings.

        Args:
            environment: Variables to read; without it, the process environment over `.env`.

        Raises:
            ValueError: A variable has a value that cannot be used; the message names it.
        """
        if environment is None:
            environment = process_environment()
        project = Project.found(environment)
        home = variables.home(environment, project.root)
        tracking_uri = variables.tracking_uri(environment, home)
        dagster_port = variables.whole_number(environment, "LEDGERLINE_DAGSTER_PORT", 3000)
        mlflow_port = variables.whole_number(environment, "LEDGERLINE_MLFLOW_PORT", 5000)
        request_log = variables.request_log(environment, home)

        def whole(name: str, default: int) -> int:
            return variables.whole_number(environment, f"LEDGERLINE_SERVING_{name}", default)

        def number(name: str, default: float, highest: float) -> float:
            return variables.number(environment, f"LEDGERLINE_SERVING_{name}", default, highest)

        return cls(
            models=_models(
                variables.words(environment, "LEDGERLINE_SERVING_MODELS", ",".join(project.models))
            ),
            host=environment.get("LEDGERLINE_SERVING_HOST") or "127.0.0.1",
            port=whole("PORT", 8080),
            tracking_uri=tracking_uri,
            poll_seconds=number("POLL_SECONDS", 1, 3600),
            webhook_secret=environment.get("LEDGERLINE_WEBHOOK_SECRET") or None,
            tokens=variables.words(environment, "LEDGERLINE_SERVING_TOKENS"),
            unpickled=frozenset(variables.words(environment, "LEDGERLINE_SERVING_UNPICKLE")),
            allow_other_clients=variables.choice(environment, "LEDGERLINE_SERVING_SIGNATURE", ("same", "any"))
            == "any",
            shadow_share=number("SHADOW_SHARE", 0, 1),
            cache=Path(environment.get("LEDGERLINE_SERVING_CACHE") or home / "serving" / "models").absolute(),
            request_log=Path(request_log) if request_log else None,
            request_log_bytes=variables.whole_number(environment, "LEDGERLINE_REQUEST_LOG_MEGABYTES", 512)
            * MEGABYTE,
            redacted=frozenset(variables.words(environment, "LEDGERLINE_REQUEST_LOG_REDACTED")),
            traces_per_second=number("TRACES_PER_SECOND", 2, 10_000),
            limits=Limits(
                body_bytes=whole("BODY_MEGABYTES", 16) * MEGABYTE,
                body_seconds=number("BODY_SECONDS", 10, 3600),
                rows=whole("ROWS", 10_000),
                seconds=number("SECONDS", 30, 3600),
                requests=whole("REQUESTS", 256),
            ),
            telemetry=Telemetry.from_environment(environment),
            links=Links.from_environment(
                environment, dagster_port, mlflow_page(environment, tracking_uri, mlflow_port)
            ),
        )


def process_environment() -> dict[str, str]:
    """The variables of this process, over `.env`."""
    load_dotenv(Project.found(os.environ).root / ".env")
    return dict(os.environ)


def prepare_libraries() -> None:
    """Tell libraries what they must know before they are imported."""
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    library_defaults.set_in(os.environ)


def allow_unpickling() -> None:
    """Let MLflow load models that run code, in this process; for which ones is decided in loaded.py."""
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"


def _models(texts: tuple[str, ...]) -> tuple[Followed, ...]:
    models = tuple(Followed.parsed(text) for text in texts)
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise ValueError("LEDGERLINE_SERVING_MODELS must name a model, and each of them once.")
    return models
