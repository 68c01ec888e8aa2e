"""Follows the alias of a model in a thread, and activates the version that has it.

A version is activated only after it was verified, loaded and tested. Until then, and if it is refused, the
previous version stays active.
"""

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ledgerline.cleaning.passwords import without_password_in
from ledgerline.cleaning.texts import clean
from ledgerline.mlflow_store import store
from ledgerline.mlflow_store.store import StoreUnreachableError
from ledgerline.mlflow_store.stored_model import ModelRefusedError
from ledgerline.registry.stages import STAGING, AliasState
from ledgerline.registry.versions import (
    SHA256_TAG,
    RegisteredModel,
    UnknownModelError,
    UnknownVersionError,
    Version,
)
from ledgerline.serving.cache import Cache
from ledgerline.serving.loaded import LoadedModel, load, require_same_clients
from ledgerline.serving.metrics import Metrics
from ledgerline.serving.settings import Followed

# The active version, the previous one, and the one in staging stay in memory, so that a promotion or a
# rollback only swaps a reference.
WARM_VERSIONS = 3

# Maximum time that a start waits for the registry before it serves the last version from the cache.
START_SECONDS = 1.0

# Interval of reading the active version from the registry again, in case it was changed.
RECHECK_SECONDS = 60.0

# A refused version is tried again after growing intervals, because its files may only have been unavailable.
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 2.0, 60.0

# Number, creation time and hash of a version.
_Key = tuple[int, datetime, str]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A version that has the alias and is not activated.

    Attributes:
        at: Time of the first refusal.
        retry_at: Time of the next attempt, on the clock of `time.monotonic`.
        wait: Seconds from the last attempt to `retry_at`.
    """

    number: int
    reason: str
    at: datetime
    retry_at: float
    wait: float


@dataclass
class Served:
    """A served model: its active version, and the state of the registry. Only its follower writes it.

    Attributes:
        current: The active version; None before the first.
        since: Time of its activation.
        staging: The loaded version in staging; None without one, or if it cannot be loaded.
        refusal: The refused version; None if the active version has the alias.
        problem: Reason why the alias cannot be followed; empty if it is followed.
        polled_at: Time of the registry's last response.
        from_cache: True if no registry has confirmed the active version since the start.
    """

    followed: Followed
    current: LoadedModel | None = None
    since: datetime | None = None
    staging: LoadedModel | None = None
    refusal: Refusal | None = None
    problem: str = ""
    polled_at: datetime | None = None
    from_cache: bool = False

    @property
    def has_nothing_to_serve(self) -> bool:
        """True if neither the registry nor the cache has a version to activate."""
        return self.current is None and self.refusal is None and bool(self.problem)


@dataclass
class Follower:
    """Follows the alias of one model.

    Attributes:
        tracking_uri: URL of the MLflow server, or URI of its database.
        unpickle: True if any MLflow model may be loaded.
        allow_other_clients: True if a version may be activated although clients of the previous one cannot
            use it.
    """

    served: Served
    cache: Cache
    tracking_uri: str
    poll_seconds: float
    metrics: Metrics
    unpickle: bool
    allow_other_clients: bool
    _client: MlflowClient | None = field(default=None, init=False)
    # True if the active version is the one in the registry, and not only one with the same number.
    _is_confirmed: bool = field(default=False, init=False)
    # Creation time of the model: a model that was deleted and created again has other versions 1, 2, ...
    _model_created: int = field(default=0, init=False)
    _warm: OrderedDict[_Key, LoadedModel] = field(default_factory=OrderedDict, init=False)
    # Number of a version in staging that could not be loaded, and when it is tried again.
    _cold: tuple[int, float] = field(default=(0, 0.0), init=False)
    _is_reachable: bool = field(default=False, init=False)
    _was_cache_tried: bool = field(default=False, init=False)
    _checked_at: float = field(default=0.0, init=False)
    _notified: threading.Event = field(default_factory=threading.Event, init=False)
    _started: threading.Event = field(default_factory=threading.Event, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the thread."""
        name = f"follower of {self.served.followed.name}"
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
        self._thread.start()

    def wait_until_started(self, seconds: float) -> None:
        """Wait until the first version is active, or the first poll has failed."""
        self._started.wait(seconds)

    def notify(self) -> None:
        """Poll now."""
        self._notified.set()

    def stop(self, seconds: float) -> None:
        """End the thread; wait for a poll in progress for at most this many seconds."""
        self._ended.set()
        self._notified.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _follow(self) -> None:
        if not store.answers(self.tracking_uri, START_SECONDS):
            self._activate_from_cache()
        while not self._ended.is_set():
            # Clear the event before the poll, because a notification during a poll requires another one.
            self._notified.clear()
            try:
                self.poll()
            except Exception as error:  # the thread must not end: the next poll may succeed
                problem = clean(str(error))
                if self.served.problem != problem:
                    logger.exception("%s cannot be followed.", self.served.followed.name)
                self.served.problem = problem
            # If no version has the alias, no version should be active.
            if self.served.refusal is not None or not self._is_reachable:
                self._activate_from_cache()
            self._started.set()
            self._notified.wait(self.poll_seconds)

    def poll(self) -> None:
        """Read the alias from the registry, and activate the version that has it."""
        name, alias = self.served.followed.name, self.served.followed.alias
        try:
            if self._client is None:
                self._client = store.connect(self.tracking_uri)
            alias_state = RegisteredModel(self._client, name).alias_state()
        except UnknownModelError as error:
            self._record_response()
            self._record_problem(str(error))
            return
        except (StoreUnreachableError, MlflowException) as error:
            self._is_reachable = False
            self.metrics.registry_up.labels(name).set(0)
            self._record_problem(without_password_in(str(error), self.tracking_uri))
            return
        self._record_response()
        if alias_state.created != self._model_created:
            # Discard the numbers of an earlier model of the same name; its version stays active meanwhile.
            self._model_created = alias_state.created
            self._is_confirmed = False
            self._cold = (0, 0.0)
            self.served.staging = None
            self._clear_refusal()
        number = alias_state.aliases.get(alias)
        if number is None:
            self._record_problem(f"No version of {name} has the alias {alias}.")
            self._clear_refusal()
        else:
            self._record_problem("")
            self._activate_version(self._client, number)
        self._warm_up(self._client, alias_state)

    def _activate_version(self, client: MlflowClient, number: int) -> None:
        current, refusal, now = self.served.current, self.served.refusal, time.monotonic()
        has_number = current is not None and current.version.number == number
        if has_number and self._is_confirmed:
            self._clear_refusal()
            if now - self._checked_at < RECHECK_SECONDS:
                return
        is_refused = refusal is not None and refusal.number == number and now < refusal.retry_at
        if is_refused and not has_number:
            return
        try:
            version = RegisteredModel(client, self.served.followed.name).version(number)
            self._checked_at = now
            if current is not None and _key(current.version) == _key(version):
                self.served.from_cache = False
                self._is_confirmed = True
                self._clear_refusal()
                return
            self._is_confirmed = False
            if is_refused:
                return
            loaded = self._loaded(client, version)
            if current is not None and not self.allow_other_clients:
                require_same_clients(loaded, current)
        except (ModelRefusedError, UnknownVersionError, MlflowException, OSError) as error:
            self._refuse(number, without_password_in(str(error), self.tracking_uri))
            return
        self._is_confirmed = True
        self._clear_refusal()
        self._activate(loaded, from_cache=False)
        instead = "" if current is None else f" instead of version {current.version.number}"
        logger.info("%s version %s is active%s.", loaded.name, number, instead)
        try:
            self.cache.store(loaded.version, loaded.experiment_id)
            self.cache.clean()
        except OSError as error:
            logger.warning("%s is active, and cannot be stored for a restart: %s", loaded.name, error)

    def _activate(self, loaded: LoadedModel, *, from_cache: bool) -> None:
        served, before = self.served, self.served.current
        served.current = loaded
        served.since = datetime.now(UTC)
        served.from_cache = from_cache
        alias = served.followed.alias
        if before is not None:
            self.metrics.model_info.remove(*_labels(before, alias))
            self.metrics.swaps.labels(loaded.name).inc()
        self.metrics.model_info.labels(*_labels(loaded, alias)).set(1)

    def _loaded(self, client: MlflowClient, version: Version) -> LoadedModel:
        key = _key(version)
        if key in self._warm:
            self._warm.move_to_end(key)
            return self._warm[key]
        started = time.perf_counter()
        folder = self.cache.files(client, version)
        downloaded = time.perf_counter()
        try:
            loaded = load(version, folder, self.unpickle, _experiment_id(client, version))
        except ModelRefusedError:
            self.cache.drop(version)
            raise
        logger.info(
            "%s version %s is loaded: downloaded in %.2f s, loaded and tested in %.2f s.",
            version.name,
            version.number,
            downloaded - started,
            time.perf_counter() - downloaded,
        )
        self._warm[key] = loaded
        while len(self._warm) > WARM_VERSIONS:
            self._warm.popitem(last=False)
        return loaded

    def _warm_up(self, client: MlflowClient, alias_state: AliasState) -> None:
        """Load the version in staging, which is the next one to be promoted."""
        number = alias_state.aliases.get(STAGING)
        staging, current = self.served.staging, self.served.current
        if number is None or (current is not None and current.version.number == number):
            self.served.staging = None
            return
        if staging is not None and staging.version.number == number:
            return
        self.served.staging = None
        if self._cold[0] == number and time.monotonic() < self._cold[1]:
            return
        try:
            version = RegisteredModel(client, self.served.followed.name).version(number)
            self.served.staging = self._loaded(client, version)
        except (ModelRefusedError, UnknownVersionError, MlflowException, OSError) as error:
            # The version is refused only if it gets the alias.
            if self._cold[0] != number:
                name = self.served.followed.name
                logger.warning("%s version %s, in staging, cannot be loaded. %s", name, number, error)
            self._cold = (number, time.monotonic() + MAX_RETRY_SECONDS)

    def _activate_from_cache(self) -> None:
        if self._was_cache_tried or self.served.current is not None:
            return
        self._was_cache_tried = True
        last = self.cache.last_active()
        if last is None:
            return
        try:
            loaded = load(last.version, last.folder, self.unpickle, last.experiment_id)
        except (ModelRefusedError, OSError) as error:
            logger.warning("The version that was active last cannot be loaded: %s", error)
            return
        self._warm[_key(last.version)] = loaded
        self._activate(loaded, from_cache=True)
        reason = self.served.refusal.reason if self.served.refusal else "The registry does not respond."
        active = f"{loaded.name} version {loaded.version.number}"
        logger.warning("%s is active again, from the cache. %s", active, reason)
        self._started.set()

    def _refuse(self, number: int, reason: str) -> None:
        reason = clean(reason)
        before = self.served.refusal
        if before is not None and before.number != number:
            before = None
        wait = min(2 * before.wait, MAX_RETRY_SECONDS) if before else MIN_RETRY_SECONDS
        at = before.at if before else datetime.now(UTC)
        self.served.refusal = Refusal(number, reason, at, time.monotonic() + wait, wait)
        name = self.served.followed.name
        self.metrics.refusals.labels(name).inc()
        self.metrics.refused_version.labels(name).set(number)
        if before is None or before.reason != reason:
            logger.error("%s version %s is refused. %s", name, number, reason)

    def _clear_refusal(self) -> None:
        self.served.refusal = None
        self.metrics.refused_version.labels(self.served.followed.name).set(0)

    def _record_response(self) -> None:
        self._is_reachable = True
        self.served.polled_at = datetime.now(UTC)
        self.metrics.registry_up.labels(self.served.followed.name).set(1)
        self.metrics.registry_poll.labels(self.served.followed.name).set(time.time())

    def _record_problem(self, problem: str) -> None:
        """Record why the alias cannot be followed; an empty text means that it is followed."""
        problem = clean(problem)
        if problem and self.served.problem != problem:
            logger.warning("%s", problem)
        elif self.served.problem and not problem:
            logger.info("%s is followed again.", self.served.followed.name)
        self.served.problem = problem


def _labels(loaded: LoadedModel, alias: str) -> tuple[str, ...]:
    return loaded.name, alias, str(loaded.version.number), loaded.sha256, loaded.training_run_id


def _key(version: Version) -> _Key:
    return version.number, version.created_at, version.tags.get(SHA256_TAG, "")


def _experiment_id(client: MlflowClient, version: Version) -> str:
    """Return the MLflow experiment of the training run, for links; empty if it cannot be read."""
    try:
        return client.get_run(version.run_id).info.experiment_id if version.run_id else ""
    except MlflowException:
        return ""
