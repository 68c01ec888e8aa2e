"""Sends the OpenLineage events of runs to an HTTP endpoint. events.py creates the events.

OpenLineage's client is imported at the first export, not with this module.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import dagster as dg

from ledgerline.cleaning.passwords import address_alone
from ledgerline.errors import LedgerlineError
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import Backfill, RefusedError, TargetUnavailableError

if TYPE_CHECKING:
    from requests import RequestException

ENDPOINT = "api/v1/lineage"
NAMESPACE = "ledgerline"
TIMEOUT_SECONDS = 5.0
# The statuses for an event that an endpoint never accepts, because of its form, size or content.
REFUSALS = (400, 413, 422)


class LineageError(LedgerlineError):
    """The projection of lineage events cannot be used as configured."""


@dataclass(frozen=True)
class OpenLineageProjection:
    """Exports runs to a backend that accepts OpenLineage events over HTTP, such as Marquez and DataHub.

    Attributes:
        url: URL of the backend; it may contain a login.
        endpoint: Path of the events at the backend; it may contain a key.
        api_key: Bearer token.
        namespace: OpenLineage namespace of jobs and datasets.
        timeout: Maximum time in seconds for connecting, and for waiting for a response.
    """

    url: str = field(repr=False)
    endpoint: str = field(default=ENDPOINT, repr=False)
    api_key: str | None = field(default=None, repr=False)
    namespace: str = NAMESPACE
    timeout: float = TIMEOUT_SECONDS

    name = "openlineage"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # The message does not contain the URL, because a part of it may be a password.
            raise LineageError(
                "OPENLINEAGE_URL is not the URL of an HTTP server.", "Set it to a URL like http://host:5000."
            )

    @property
    def address(self) -> str:
        """The URL of the events without secrets."""
        return address_alone(urljoin(self.url, self.endpoint))

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Send the new events in order, up to the first one that is not accepted.

        Raises:
            TargetUnavailableError: Not all events were accepted; the next export sends all of them again.
            RefusedError: The endpoint refuses some events permanently, and has accepted all others.
        """
        from openlineage.client.transport import http
        from requests import RequestException

        from ledgerline.lineage.events import run_events

        events = run_events(now, self.namespace, before=before)
        if not events:
            return 0
        key = http.ApiKeyTokenProvider({"api_key": self.api_key}) if self.api_key else http.TokenProvider({})
        # The observer retries later. OpenLineage's client would retry five times, for 9 s.
        retry = {"total": 0}
        config = http.HttpConfig(self.url, self.endpoint, timeout=self.timeout, auth=key, retry=retry)
        transport = http.HttpTransport(config)
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
                    # The client has followed a redirect with a GET request, without the event.
                    raise self._unavailable(f"it redirects to {address_alone(response.url)}")
                taken += 1
            if last is not None and not taken:
                raise last  # The endpoint accepted no event, so it may be the wrong one.
        except RequestException as error:
            raise self._unavailable(self._reason(error)) from None  # The cause may contain secrets.
        finally:
            transport.close()
        if refused:
            raise RefusedError(f"OpenLineage at {self.address}", refused, taken)
        return taken

    def export_backfill(self, backfill: Backfill) -> int:
        """Return 0, because OpenLineage has no events for backfills."""
        return 0

    def _unavailable(self, reason: str) -> TargetUnavailableError:
        return TargetUnavailableError(f"OpenLineage at {self.address} does not accept events: {reason}.")

    def _reason(self, error: "RequestException") -> str:
        from requests import RequestException, Timeout

        if error.response is not None:
            return f"it responds with status {error.response.status_code} {error.response.reason}".strip()
        if isinstance(error, Timeout):
            return f"it did not respond within {self.timeout:g} s"
        # The messages of requests repeat the URL; the error of the operating system is at the end of the
        # causes.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and not isinstance(cause, RequestException):
                return str(cause)
            cause = cause.__cause__ or cause.__context__
        return type(error).__name__
