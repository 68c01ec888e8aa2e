"""Tests sending lineage to a real server on loopback that accepts it, and all ways to fail."""

import errno
import json
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from openlineage.client.serde import Serde

from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import Backfill, Projection, RefusedError, TargetUnavailableError
from ledgerline.lineage.events import run_events
from ledgerline.lineage.projection import LineageError, OpenLineageProjection
from ledgerline.testing.recordings import Recording, Recordings

HOST = "127.0.0.1"
KEY = "a-key-of-somebody"
LOGIN = "somebody:a-password"
# Beside the time-out: sending, and a machine with other things to do.


@dataclass
class Backend:
    """A server that stores requests, and responds with `status` after `taken` events."""

    status: int = 201
    taken: int = 0
    refuses: str | None = None  # a text in events that are never taken
    redirect: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    logins: set[str | None] = field(default_factory=set)
    url: str = ""


@contextmanager
def serving(backend: Backend) -> Iterator[Backend]:
    """A server that keeps what it takes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = backend.status if len(backend.events) >= backend.taken else 201
            if backend.refuses is not None and backend.refuses.encode() in body:
                status = 413
            if status < 300:
                backend.events.append(json.loads(body))
                backend.paths.add(self.path)
                backend.logins.add(self.headers["Authorization"])
            self.answer(status)

        def do_GET(self) -> None:
            self.answer(200)

        def answer(self, status: int) -> None:
            self.send_response(status)
            if backend.redirect is not None and status in (302, 308):
                self.send_header("Location", backend.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
            """Keep quiet."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        backend.url = f"http://{HOST}:{server.server_port}"
        try:
            yield backend
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with serving(Backend()) as backend:
        yield backend


@pytest.fixture
def recording(recorded: Recordings) -> Recording:
    """A run with steps that were retried."""
    return recorded["retries"]


@pytest.fixture
def history(recording: Recording) -> RunHistory:
    return recording.history


@pytest.fixture
def anywhere() -> Iterator[dg.DagsterInstance]:
    """A projection of lineage does not use the instance."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def sent_events(history: RunHistory) -> list[dict[str, Any]]:
    return [json.loads(Serde.to_json(event)) for event in run_events(history, "weather")]


def to(url: str, **settings: Any) -> OpenLineageProjection:
    return OpenLineageProjection(url, namespace="weather", **settings)


def refusal(
    projection: Projection, instance: dg.DagsterInstance, history: RunHistory
) -> TargetUnavailableError:
    """Return the error that an export raises."""
    with pytest.raises(TargetUnavailableError) as caught:
        projection.export(instance, history, None)
    return caught.value


def logged(error: BaseException) -> str:
    """Return everything that a log would contain of an error."""
    return "".join(traceback.format_exception(error))


def test_all_events_arrive_in_order(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    expected = sent_events(history)
    assert to(backend.url).export(anywhere, history, None) == len(expected) > 10
    assert backend.events == expected
    assert backend.paths == {"/api/v1/lineage"}
    assert backend.logins == {None}


def test_a_key_and_another_endpoint_are_used(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    to(backend.url, api_key=KEY, endpoint="openapi/openlineage/api/v1/lineage").export(
        anywhere, history, None
    )
    assert backend.paths == {"/openapi/openlineage/api/v1/lineage"}
    assert backend.logins == {f"Bearer {KEY}"}


def test_sent_events_are_not_sent_again(
    anywhere: dg.DagsterInstance, backend: Backend, recording: Recording
) -> None:
    projection = to(backend.url)
    half = recording.history_of(recording.records[: len(recording.records) // 2])
    first = projection.export(anywhere, half, None)
    assert projection.export(anywhere, half, half) == 0
    second = projection.export(anywhere, recording.history, half)
    assert projection.export(anywhere, recording.history, recording.history) == 0
    assert first > 0
    assert second > 0
    assert len(backend.events) == first + second
    by_time = sorted(backend.events, key=lambda event: (event["eventTime"], str(event)))
    everything = sorted(sent_events(recording.history), key=lambda event: (event["eventTime"], str(event)))
    assert by_time == everything


def test_sending_twice_sends_the_same(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    count = to(backend.url).export(anywhere, history, None)
    to(backend.url).export(anywhere, history, None)
    assert backend.events[:count] == backend.events[count:]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_server_that_responds_with_an_error_receives_everything_later(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory, status: int
) -> None:
    projection = to(backend.url.replace("//", f"//{LOGIN}@"), api_key=KEY)
    backend.status = status
    error = refusal(projection, anywhere, history)
    assert f"{backend.url}/api/v1/lineage" in str(error)
    assert f" {status} " in str(error)
    backend.status = 201
    projection.export(anywhere, history, None)
    assert backend.events == sent_events(history)


def test_a_server_that_stops_taking_events_gets_them_from_the_beginning(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    backend.status, backend.taken = 500, 3
    refusal(to(backend.url), anywhere, history)
    assert backend.events == sent_events(history)[:3]
    backend.status = 201
    to(backend.url).export(anywhere, history, None)
    assert backend.events[3:] == sent_events(history)


def test_events_that_are_never_accepted_are_named_and_the_others_sent(
    anywhere: dg.DagsterInstance, backend: Backend, recorded: Recordings
) -> None:
    history = recorded["errors"].history
    backend.refuses = '"errorMessage"'
    with pytest.raises(RefusedError, match="413 Request Entity Too Large") as refused:
        to(backend.url).export(anywhere, history, None)
    others = [event for event in sent_events(history) if "errorMessage" not in json.dumps(event)]
    assert backend.events == others
    assert refused.value.written == len(others) > 0


def test_a_server_that_is_down_is_given_up_on_at_once(
    anywhere: dg.DagsterInstance, history: RunHistory
) -> None:
    with socket.socket() as bound:
        bound.bind((HOST, 0))  # not listening, and no other process can
        address = f"{HOST}:{bound.getsockname()[1]}"
        error = refusal(to(f"http://{LOGIN}@{address}", api_key=KEY), anywhere, history)
    reason = f"[Errno {errno.ECONNREFUSED}] Connection refused"
    assert str(error) == f"OpenLineage at http://{address}/api/v1/lineage does not accept events: {reason}."


def test_a_server_that_never_responds_is_waited_for_until_the_timeout(
    anywhere: dg.DagsterInstance, history: RunHistory
) -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = f"http://{HOST}:{silent.getsockname()[1]}"
        error = refusal(to(url, timeout=0.3), anywhere, history)
    assert "it did not respond within 0.3 s" in str(error)


def test_a_server_that_hangs_up_is_unavailable(anywhere: dg.DagsterInstance, history: RunHistory) -> None:
    with socket.create_server((HOST, 0)) as rude:

        def hang_up() -> None:
            connection, _ = rude.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://{HOST}:{rude.getsockname()[1]}"
        error = refusal(to(url), anywhere, history)
        thread.join()
    assert f"{url}/api/v1/lineage" in str(error)


def test_a_host_that_does_not_exist_is_unavailable(anywhere: dg.DagsterInstance, history: RunHistory) -> None:
    with pytest.raises(TargetUnavailableError, match=r"http://nowhere\.invalid/api/v1/lineage"):
        to("http://nowhere.invalid").export(anywhere, history, None)


def test_a_redirect_that_would_lose_the_event_is_not_a_success(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    with serving(Backend(status=302, redirect=f"{backend.url}/login?key={KEY}")) as moved:
        error = refusal(to(moved.url), anywhere, history)
    assert f"it redirects to {backend.url}/login." in str(error)


def test_a_redirect_that_keeps_the_event_is_followed(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    with serving(Backend(status=308, redirect=f"{backend.url}/new")) as moved:
        to(moved.url).export(anywhere, history, None)
    assert backend.events == sent_events(history)


@pytest.mark.parametrize("status", [401, 302])
def test_no_message_contains_login_or_key(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory, status: int
) -> None:
    backend.status, backend.redirect = status, f"{backend.url.replace('//', f'//{LOGIN}@')}/login?key={KEY}"
    url = f"{backend.url.replace('//', f'//{LOGIN}@')}/?key={KEY}"
    projection = to(url, api_key=KEY, endpoint=f"api/v1/lineage?key={KEY}")
    error = refusal(projection, anywhere, history)
    for text in (logged(error), repr(projection), projection.address):
        assert KEY not in text
        assert "a-password" not in text
    backend.status = 201
    projection.export(anywhere, history, None)


def test_a_key_that_cannot_be_sent_is_in_no_message(
    anywhere: dg.DagsterInstance, backend: Backend, history: RunHistory
) -> None:
    error = refusal(to(backend.url, api_key=f"{KEY}\n"), anywhere, history)
    assert KEY not in logged(error)


@pytest.mark.parametrize("url", [f"{LOGIN}@host:5000", "host", "ftp://host", "http://", f"http://{LOGIN}@"])
def test_an_invalid_address_is_refused_and_not_in_the_message(url: str) -> None:
    with pytest.raises(LineageError, match=r"a URL like http://host:5000") as caught:
        to(url)
    assert "a-password" not in logged(caught.value)


def test_it_is_a_projection_without_events_of_backfills() -> None:
    projection: Projection = to("http://localhost:5000")
    assert projection.name == "openlineage"
    assert projection.export_backfill(Backfill("abc", 1.0, 2.0, "COMPLETED_SUCCESS", None)) == 0


def test_openlineage_is_imported_by_the_first_event_only() -> None:
    code = "import sys, ledgerline.lineage.projection; sys.exit('openlineage' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
