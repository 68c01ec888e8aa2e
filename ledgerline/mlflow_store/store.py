"""Connects to MLflow, creates experiments and downloads files. Other modules define what is stored there."""

import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from ledgerline.cleaning.passwords import without_password_in
from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.store.entities import PagedList

Entity = TypeVar("Entity")

SERVER_SCHEMES = ("http", "https")
HEALTH_TIMEOUT_SECONDS = 3
HEALTH_ATTEMPTS = 2


class StoreUnreachableError(LedgerlineError):
    """Raised when MLflow is unavailable. The message contains its address."""

    is_transient = True


def connect(tracking_uri: str) -> "MlflowClient":
    """Open a client, after a check of a few seconds that the server or the database can be reached.

    Missing tables of a database are created.

    Raises:
        StoreUnreachableError: The server does not respond, or the database cannot be opened.
    """
    if urlsplit(tracking_uri).scheme in SERVER_SCHEMES:
        _require_health(tracking_uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if urlsplit(tracking_uri).scheme in SERVER_SCHEMES:
        return MlflowClient(tracking_uri)
    with _one_at_a_time(tracking_uri):
        try:
            client = MlflowClient(tracking_uri)
            client.search_experiments(max_results=1)  # This creates the tables of a new database.
        except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: its driver is missing
            problem = f"The MLflow database {tracking_uri} cannot be opened: {error}."
            raise StoreUnreachableError(without_password_in(problem, tracking_uri)) from None
    return client


def experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """Return the id of an experiment, which is created if it does not exist.

    Its artifacts are stored in a folder or at a URL; if that is None, the server decides.

    Raises:
        StoreUnreachableError: The experiment was deleted. The message explains how to restore it.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return _active(experiment)
    location = None
    if artifacts is not None:
        location = artifacts if "://" in artifacts else Path(artifacts).absolute().as_uri()
        location = f"{location.rstrip('/')}/{name}"
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        experiment = client.get_experiment_by_name(name)  # Another process may have created it.
        if experiment is None:
            raise
        return _active(experiment)


def _active(experiment: "Experiment") -> str:
    """Return the id of an experiment that can be written to."""
    if experiment.lifecycle_stage == "deleted":
        raise StoreUnreachableError(
            f"The MLflow experiment {experiment.name!r} was deleted.",
            f"Restore it with `mlflow experiments restore --experiment-id {experiment.experiment_id}`, or "
            "set LEDGERLINE_EXPERIMENT to another name.",
        )
    return experiment.experiment_id


def paged(search: "Callable[[str | None], PagedList[Entity]]") -> Iterator[Entity]:
    """Yield the entities of all pages of a search, a function of the token of a page."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def downloaded(client: "MlflowClient", location: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a model."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        yield Path(
            download_artifacts(artifact_uri=location, dst_path=folder, tracking_uri=client.tracking_uri)
        )


def answers(tracking_uri: str, seconds: float) -> bool:
    """Return whether MLflow is a server that responds within this time, or a database."""
    import requests

    if urlsplit(tracking_uri).scheme not in SERVER_SCHEMES:
        return True
    try:
        return requests.get(f"{tracking_uri.rstrip('/')}/health", timeout=seconds).ok
    except requests.RequestException:
        return False


def _require_health(url: str) -> None:
    """Check the health of the server first, because MLflow's own calls would retry for minutes."""
    import requests

    problem: Exception | None = None
    for attempt in range(HEALTH_ATTEMPTS):
        if attempt:
            time.sleep(1)
        try:
            requests.get(f"{url.rstrip('/')}/health", timeout=HEALTH_TIMEOUT_SECONDS).raise_for_status()
            return
        except requests.RequestException as error:
            problem = error
    raise StoreUnreachableError(
        without_password_in(f"The MLflow server at {url} does not respond: {problem}.", url)
    ) from None  # The cause may contain the password.


@contextmanager
def _one_at_a_time(database_uri: str) -> Iterator[None]:
    """Prevent two processes from creating the tables of a SQLite file at once, which would damage it."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(database_uri)
    except ArgumentError:
        yield  # MLflow also has stores that are not databases, and reports URIs that it does not support.
        return
    if url.get_backend_name() != "sqlite" or not url.database:
        yield
        return
    database = Path(url.database)
    lock = database.with_name(f"{database.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise StoreUnreachableError(f"{lock.parent} cannot be written: {error.strerror}.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
