"""Sends the OpenLineage events of runs to an HTTP endpoint. What they say: events.py.

OpenLineage's client is imported by the first event, not with this module.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import dagster as dg

from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import Backfill, RefusedError, TargetUnavailableError

if TYPE_CHECKING:
    from requests import RequestException

ENDPOINT = "api/v1/lineage"
NAMESPACE = "ledgerline"
TIMEOUT_SECONDS = 5.0
# Endpoints respond like this to an event that they will never take: for its form, its size or its content.
REFUSALS = (400, 413, 422)


@dataclass(frozen=True)
class OpenLineageProjection:
    """Shows runs in whatever takes OpenLineage events over HTTP (Marquez, DataHub, ...).

    Attributes:
        url: Where that is; may hold a login.
        endpoint: Where in there events are posted; may hold a key, too.
        api_key: Sent as bearer token.
        namespace: OpenLineage's, of jobs and datasets.
        timeout: Seconds that it may take to connect, and to answer.
    """

    url: str = field(repr=False)
    endpoint: str = field(default=ENDPOINT, repr=False)
    api_key: str | None = field(default=None, repr=False)
    namespace: str = NAMESPACE
    timeout: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # Not shown: what is in the wrong place may be a password.
            raise ValueError("The address for OpenLineage events has to be like http://host:5000.")

    @property
    def name(self) -> str:
        """Its own, in messages and as the key of its cursor."""
        return "openlineage"

    @property
    def address(self) -> str:
        """Where events are posted, as it may be shown."""
        return _without_secrets(urljoin(self.url, self.endpoint))

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Send the events that are new, in order; the first that is not taken ends it.

        Raises:
            TargetUnavailableError: Not all were taken. All are sent again when asked again.
            RefusedError: The endpoint refuses some of them for good; all others were taken.
        """
        from openlineage.client.transport.http import (
            ApiKeyTokenProvider,
            HttpConfig,
            HttpTransport,
            TokenProvider,
        )
        from requests import RequestException

        from ledgerline.lineage.events import run_events

        events = run_events(now, self.namespace, before=before)
        if not events:
            return 0
        key = ApiKeyTokenProvider({"api_key": self.api_key}) if self.api_key else TokenProvider({})
        # Whoever asks tries again later, so nothing is retried here: five times by default, for 9 s.
        retry = {"total": 0}
        config = HttpConfig(self.url, self.endpoint, timeout=self.timeout, auth=key, retry=retry)
        transport = HttpTransport(config)
        refused: dict[str, str] = {}
        taken = 0
        last: RequestException | None = None
        try:
            for event in events:
                try:
                    response = transport.emit(event)
                except RequestException as error:
                    if error.response is None or error.response.status_code not in REFUSALS:
                        raise
                    last = error
                    refused[f"an event of {event.job.name}"] = self._reason(error)
                    continue
                if response.request.method != "POST":
                    # A redirect turned the event into a mere GET of another page.
                    raise self._unavailable(f"it redirects to {_without_secrets(response.url)}")
                taken += 1
            if last is not None and not taken:
                raise last  # not one was taken: it may be no such endpoint
        except RequestException as error:
            raise self._unavailable(self._reason(error)) from None  # the cause may show login and key
        finally:
            transport.close()
        if refused:
            raise RefusedError(f"OpenLineage at {self.address}", refused, taken)
        return taken

    def export_backfill(self, backfill: Backfill) -> int:
        """Nothing: OpenLineage knows runs, not what launched several of them."""
        return 0

    def _unavailable(self, reason: str) -> TargetUnavailableError:
        return TargetUnavailableError(f"OpenLineage at {self.address} does not take events: {reason}.")

    def _reason(self, error: "RequestException") -> str:
        from requests import RequestException, Timeout

        if error.response is not None:
            return f"it answers {error.response.status_code} {error.response.reason}".strip()
        if isinstance(error, Timeout):
            return f"it did not answer within {self.timeout:g} s"
        # What requests itself says repeats the address; what the system said is at the bottom.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and not isinstance(cause, RequestException):
                return str(cause)
            cause = cause.__cause__ or cause.__context__
        return type(error).__name__


def _without_secrets(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
