"""The thread that follows the alias of a model, and lets the version that carries it take over.

A version takes over only when it is verified, loaded and tried; until then, and if it is refused, the one
before goes on.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The version that answers, the one before it, and the one in staging: a promotion or a rollback is a swap of
# what is in memory.
WARM_VERSIONS = 3

# How long a start waits for a registry before it does without.
START_SECONDS = 1.0

# What the registry says of the version that answers is read again so often, should it have been changed.
RECHECK_SECONDS = 60.0

# A refused version is tried again, each time later: its files may only have been away.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 2.0, 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A version that should answer, and must not or cannot.

    Attributes:
        number: The version.
        reason: Why, in a sentence.
        at: When it was refused first.
        retry_at: When it is tried again, by `time.monotonic`.
        wait: How long that was from the last try, in seconds.
    """

    number: int
    reason: str
    at: datetime
    retry_at: float
    wait: float


@dataclass
class Served:
    """A model that is served: who answers now, and how it stands with the registry. One thread writes it.

    Attributes:
        followed: The model and its alias.
        current: Who answers; None: nobody yet.
        since: Since when.
        staging: The version in staging, if there is one and it can be loaded.
        refusal: The version that should answer, if it was refused.
        problem: Why the registry cannot be followed; empty: it is.
        looked_at: When the registry answered last.
        from_cache: Whether the one who answers was never confirmed by a registry since the start.
    """

    followed: Followed
    current: LoadedModel | None = None
    since: datetime | None = None
    staging: LoadedModel | None = None
    refusal: Refusal | None = None
    problem: str = ""
    looked_at: datetime | None = None
    from_cache: bool = False

    @property
    def has_nothing_to_serve(self) -> bool:
        """Whether there is no version to wait for: none in the stage, or no registry to ask and none kept."""
        return self.current is None and self.refusal is None and bool(self.problem)


@dataclass
class Follower:
    """Follows the alias of one model.

    Attributes:
        served: What it keeps up to date.
        cache: The local files of the model.
        tracking_uri: URL of the MLflow server, or URI of its database.
        poll_seconds: How often it looks.
        metrics: What it tells.
        unpickle: Whether any MLflow model may be loaded.
        allow_other_clients: Whether a version may take over that clients of the one before cannot use.
        on_swap: Called, in this thread, after another version took over.
    """

    served: Served
    cache: Cache
    tracking_uri: str
    poll_seconds: float
    metrics: Metrics
    unpickle: bool = False
    allow_other_clients: bool = False
    on_swap: Callable[[LoadedModel], None] = lambda loaded: None
    _client: "MlflowClient | None" = field(default=None, init=False)
    # Whether the active version is the one in the registry, and not only one with the same number.
    _is_confirmed: bool = field(default=False, init=False)
    # The model by its creation: another one that has its name has other versions of the same numbers.
    _model_created: int = field(default=0, init=False)
    _warm: OrderedDict[tuple[int, datetime, str], LoadedModel] = field(
        default_factory=OrderedDict, init=False
    )
    # The version in staging that could not be loaded, and when it is tried again.
    _cold: tuple[int, float] = field(default=(0, 0.0), init=False)
    _reached: bool = field(default=False, init=False)
    _last_good_tried: bool = field(default=False, init=False)
    _checked_at: float = field(default=0.0, init=False)
    _wake: threading.Event = field(default_factory=threading.Event, init=False)
    _started: threading.Event = field(default_factory=threading.Event, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=self._follow, name=f"follower of {self.served.followed.name}", daemon=True
        )
        self._thread.start()

    def wait_until_started(self, seconds: float) -> None:
        """Wait for the first version, or the first look that found none."""
        self._started.wait(seconds)

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """End the thread; a look that is under way is not waited for longer than this."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _follow(self) -> None:
        if not store.answers(self.tracking_uri, START_SECONDS):
            self._serve_last_good()
        while not self._ended.is_set():
            # Before the look: who wakes it during one wants another.
            self._wake.clear()
            try:
                self.look()
            except Exception as error:  # the thread must not end: the next look may succeed
                problem = clean(str(error))
                if self.served.problem != problem:
                    logger.exception("%s cannot be followed.", self.served.followed.name)
                self.served.problem = problem
            # Where nobody carries the alias, nobody is meant to answer.
            if self.served.refusal is not None or not self._reached:
                self._serve_last_good()
            self._started.set()
            self._wake.wait(self.poll_seconds)

    def look(self) -> None:
        """Ask the registry who carries the alias, and let that version take over if it is another."""
        from mlflow.exceptions import MlflowException

        name, alias = self.served.followed.name, self.served.followed.alias
        try:
            if self._client is None:
                self._client = store.connect(self.tracking_uri)
            alias_state = RegisteredModel(self._client, name).alias_state()
        except UnknownModelError as error:
            self._registry_answered()
            self._cannot_follow(str(error))
            return
        except (StoreUnreachableError, MlflowException) as error:
            self._reached = False
            self.metrics.registry_up.labels(name).set(0)
            self._cannot_follow(store.without_password_in(str(error), self.tracking_uri))
            return
        self._registry_answered()
        if alias_state.created != self._model_created:
            self._forget_versions_of_another_model()
            self._model_created = alias_state.created
        number = alias_state.aliases.get(alias)
        if number is None:
            self._cannot_follow(f"No version of {name} carries the alias {alias}.")
            self._forget_refusal()
        else:
            self._can_follow()
            self._let_take_over(self._client, number)
        self._warm_up(self._client, alias_state)

    def _let_take_over(self, client: "MlflowClient", number: int) -> None:
        current, refusal, now = self.served.current, self.served.refusal, time.monotonic()
        has_number = current is not None and current.version.number == number
        if has_number and self._is_confirmed:
            self._forget_refusal()
            if now - self._checked_at < RECHECK_SECONDS:
                return
        is_refused = refusal is not None and refusal.number == number and now < refusal.retry_at
        if is_refused and not has_number:
            return
        from mlflow.exceptions import MlflowException

        try:
            version = RegisteredModel(client, self.served.followed.name).version(number)
            self._checked_at = now
            if current is not None and _key(current.version) == _key(version):
                self.served.from_cache = False
                self._is_confirmed = True
                self._forget_refusal()
                return
            self._is_confirmed = False
            if is_refused:
                return
            loaded = self._loaded(client, version)
            if current is not None and not self.allow_other_clients:
                require_same_clients(loaded, current)
        except (ModelRefusedError, UnknownVersionError, MlflowException, OSError) as error:
            self._refuse(number, store.without_password_in(str(error), self.tracking_uri))
            return
        self._swap(loaded)

    def _swap(self, loaded: LoadedModel) -> None:
        served, before = self.served, self.served.current
        served.current = loaded
        served.since = datetime.now(UTC)
        served.from_cache = False
        self._is_confirmed = True
        self._forget_refusal()
        self._tell_who_answers(loaded, before)
        if before is not None:
            self.metrics.swaps.labels(loaded.name).inc()
        logger.info(
            "%s version %s answers%s.",
            loaded.name,
            loaded.version.number,
            f", instead of version {before.version.number}" if before is not None else "",
        )
        try:
            self.cache.remember(loaded.version, loaded.experiment_id)
            self.cache.clean()
        except OSError as error:
            logger.warning("%s is served, and cannot be remembered: %s", loaded.name, error)
        self.on_swap(loaded)

    def _loaded(self, client: "MlflowClient", version: Version) -> LoadedModel:
        key = _key(version)
        if key in self._warm:
            self._warm.move_to_end(key)
            return self._warm[key]
        started = time.perf_counter()
        folder = self.cache.files(client, version)
        fetched = time.perf_counter()
        try:
            loaded = load(version, folder, self.unpickle, _experiment_id(client, version))
        except ModelRefusedError:
            self.cache.drop(version)
            raise
        logger.info(
            "%s version %s is loaded: fetched in %.2f s, loaded and tried in %.2f s.",
            version.name,
            version.number,
            fetched - started,
            time.perf_counter() - fetched,
        )
        self._warm[key] = loaded
        while len(self._warm) > WARM_VERSIONS:
            self._warm.popitem(last=False)
        return loaded

    def _warm_up(self, client: "MlflowClient", alias_state: AliasState) -> None:
        """Have the version in staging at hand: it is the one that will be promoted, if any is."""
        from mlflow.exceptions import MlflowException

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
            # Whether it may take over is judged when it should.
            if self._cold[0] != number:
                logger.warning(
                    "%s version %s, in staging, cannot be loaded. %s",
                    self.served.followed.name,
                    number,
                    error,
                )
            self._cold = (number, time.monotonic() + LAST_RETRY_SECONDS)

    def _serve_last_good(self) -> None:
        if self._last_good_tried or self.served.current is not None:
            return
        self._last_good_tried = True
        found = self.cache.last_good()
        if found is None:
            return
        try:
            loaded = load(found.version, found.folder, self.unpickle, found.experiment_id)
        except (ModelRefusedError, OSError) as error:
            logger.warning("What was served last cannot be served again: %s", error)
            return
        self._warm[_key(found.version)] = loaded
        self.served.current = loaded
        self.served.since = datetime.now(UTC)
        self.served.from_cache = True
        self._tell_who_answers(loaded, None)
        logger.warning(
            "%s version %s answers, as it did before the start: %s",
            loaded.name,
            loaded.version.number,
            self.served.refusal.reason if self.served.refusal else "the registry does not.",
        )
        self._started.set()
        self.on_swap(loaded)

    def _refuse(self, number: int, why: str) -> None:
        reason = clean(why)
        before = self.served.refusal
        again = before is not None and before.number == number
        wait = min(2 * before.wait, LAST_RETRY_SECONDS) if again and before else FIRST_RETRY_SECONDS
        at = before.at if again and before else datetime.now(UTC)
        self.served.refusal = Refusal(number, reason, at, time.monotonic() + wait, wait)
        name = self.served.followed.name
        self.metrics.refusals.labels(name).inc()
        self.metrics.refused_version.labels(name).set(number)
        if not again or (before and before.reason != reason):
            logger.error("%s version %s is refused. %s", name, number, reason)

    def _forget_versions_of_another_model(self) -> None:
        """Compare no number with those of a model that had the name before; its version goes on meanwhile."""
        self._is_confirmed = False
        self._cold = (0, 0.0)
        self.served.staging = None
        self._forget_refusal()

    def _forget_refusal(self) -> None:
        self.served.refusal = None
        self.metrics.refused_version.labels(self.served.followed.name).set(0)

    def _registry_answered(self) -> None:
        self._reached = True
        self.served.looked_at = datetime.now(UTC)
        self.metrics.registry_up.labels(self.served.followed.name).set(1)
        self.metrics.registry_look.labels(self.served.followed.name).set(time.time())

    def _cannot_follow(self, why: str) -> None:
        problem = clean(why)
        if self.served.problem != problem:
            logger.warning("%s", problem)
        self.served.problem = problem

    def _can_follow(self) -> None:
        if self.served.problem:
            logger.info("%s is followed again.", self.served.followed.name)
        self.served.problem = ""

    def _tell_who_answers(self, loaded: LoadedModel, before: LoadedModel | None) -> None:
        for one, value in ((before, None), (loaded, 1)):
            if one is None:
                continue
            labels = (
                one.name,
                self.served.followed.alias,
                str(one.version.number),
                one.sha256,
                one.training_run_id,
            )
            if value is None:
                self.metrics.model_info.remove(*labels)
            else:
                self.metrics.model_info.labels(*labels).set(value)


def _key(version: Version) -> tuple[int, datetime, str]:
    return version.number, version.created_at, version.tags.get(SHA256_TAG, "")


def _experiment_id(client: "MlflowClient", version: Version) -> str:
    """Where its training run is; only for a link."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(version.run_id).info.experiment_id if version.run_id else ""
    except MlflowException:
        return ""
