"""Reaching MLflow: its client, an experiment, files. What is kept there is not known here."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVER_SCHEMES = ("http", "https")
HEALTH_TIMEOUT_SECONDS = 3
HEALTH_ATTEMPTS = 2


class StoreUnreachableError(Exception):
    """MLflow cannot be used now; the message says where it was looked for."""


def connect(tracking_uri: str) -> "MlflowClient":
    """Open a client, after making sure in a few seconds that there is something to talk to.

    Args:
        tracking_uri: URL of a server, or URI of a database, whose tables are created when missing.

    Raises:
        StoreUnreachableError: The server does not answer, or the database cannot be opened.
    """
    if urlsplit(tracking_uri).scheme in SERVER_SCHEMES:
        _require_health(tracking_uri)
    from mlflow import MlflowClient

    if urlsplit(tracking_uri).scheme in SERVER_SCHEMES:
        return MlflowClient(tracking_uri)
    with _one_at_a_time(tracking_uri):
        try:
            client = MlflowClient(tracking_uri)
            client.search_experiments(max_results=1)  # creates the tables of a new database
        except Exception as error:
            # SQLAlchemy and MLflow raise errors of many types for a database that cannot be used.
            raise StoreUnreachableError(
                f"The MLflow database {without_password(tracking_uri)} cannot be opened: {error}."
            ) from error
    return client


def experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The id of an experiment, created when missing.

    Args:
        client: An open client.
        name: The experiment's name.
        artifacts: Folder or URL for the artifacts of a new experiment; None: the server decides.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    location = None
    if artifacts is not None:
        location = artifacts if "://" in artifacts else Path(artifacts).absolute().as_uri()
        location = f"{location.rstrip('/')}/{name}"
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another process was quicker
        if found is None:
            raise
        return found.experiment_id


def download(client: "MlflowClient", location: str) -> Path:
    """A local folder with the files of a model, downloaded unless they are local already."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=location, tracking_uri=client.tracking_uri))


def without_password(uri: str) -> str:
    """The URI as it may be shown in logs and errors."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rsplit("@", 1)[1]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def _require_health(url: str) -> None:
    """Ask the server whether it is there: MLflow's own calls would retry for minutes."""
    import urllib.request

    problem: Exception | None = None
    for attempt in range(HEALTH_ATTEMPTS):
        if attempt:
            time.sleep(1)
        try:
            # The scheme was checked by the caller.
            with urllib.request.urlopen(  # noqa: S310
                f"{url.rstrip('/')}/health", timeout=HEALTH_TIMEOUT_SECONDS
            ):
                return
        except OSError as error:  # refused, unknown host, timed out, or an HTTP error status
            problem = error
    raise StoreUnreachableError(
        f"The MLflow server at {without_password(url)} does not answer: {problem}."
    ) from problem


@contextmanager
def _one_at_a_time(database_uri: str) -> Iterator[None]:
    """Keep two processes from creating the tables of one SQLite file together, which breaks it."""
    parts = urlsplit(database_uri)
    if not parts.scheme.startswith("sqlite"):
        yield
        return
    lock = Path(unquote(parts.path).removeprefix("/") if parts.netloc else unquote(parts.path[1:]))
    lock = lock.with_name(f"{lock.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise StoreUnreachableError(f"{lock.parent} cannot be written: {error.strerror}.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
