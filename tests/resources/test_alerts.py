"""Tests alerts about changes of production, sent to a URL that accepts them, is down, or refuses them."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ledgerline.dagster.alerts import AlertError, AlertResource
from ledgerline.registry.history import OUTSIDE, PROMOTION, End, Entry, Move
from ledgerline.testing.loopback_servers import listening
from tests.resources.alert_address import AlertAddress

AT = datetime(2026, 3, 4, 10, 20, 30, 400000, tzinfo=UTC)
PROMOTED = Move(
    at=AT,
    alias="production",
    from_version=3,
    to_version=4,
    cause=PROMOTION,
    by="ada",
    reason="it is better",
    evidence="abc",
    run_id="run",
)
CHANGED = replace(
    PROMOTED,
    from_version=None,
    cause=OUTSIDE,
    by="unknown",
    reason="changed outside, no evidence",
    evidence="",
    run_id="",
    not_before=datetime(2026, 3, 4, 10, 20, 25, tzinfo=UTC),
)


@pytest.fixture
def address() -> Iterator[AlertAddress]:
    with listening(AlertAddress()) as server:
        yield server


def tell(address: AlertAddress | str, move: Move = PROMOTED) -> None:
    url = address if isinstance(address, str) else f"{address.url}/services/secret"
    AlertResource(url=url).tell("flight_delay", Entry(7, move, seal="7 5ea1"), move, End(AT, moved=True))


def test_a_message_has_the_move_its_time_author_and_evidence(address: AlertAddress) -> None:
    tell(address)
    assert address.paths == ["POST /services/secret"]
    assert address.messages == [
        {
            "text": (
                "production of flight_delay: version 3 -> version 4 at 2026-03-04 10:20:30 UTC, "
                "promotion by ada: it is better"
            ),
            "model": "flight_delay",
            "alias": "production",
            "from_version": 3,
            "to_version": 4,
            "cause": "promotion",
            "by": "ada",
            "reason": "it is better",
            "at": "2026-03-04T10:20:30+00:00",
            "not_before": None,
            "evidence_sha256": "abc",
            "dagster.run_id": "run",
            "journal_entry": 7,
            "journal_seal": "7 5ea1",
        }
    ]


def test_a_message_of_an_external_change_has_the_interval_of_its_time(address: AlertAddress) -> None:
    tell(address, CHANGED)
    (message,) = address.messages
    assert message["text"] == (
        "production of flight_delay: no version -> version 4 between 2026-03-04 10:20:25 and 10:20:30 UTC, "
        "outside by unknown: changed outside, no evidence"
    )
    assert message["not_before"] == "2026-03-04T10:20:25+00:00"


def test_a_removed_alias_is_alerted(address: AlertAddress) -> None:
    tell(address, replace(PROMOTED, to_version=None, reason=""))
    assert address.messages[0]["text"] == (
        "production of flight_delay: version 3 -> no version at 2026-03-04 10:20:30 UTC, promotion by ada"
    )


def test_without_an_address_no_alert_is_sent() -> None:
    AlertResource().tell("flight_delay", Entry(7, PROMOTED), PROMOTED, End(AT, moved=True))


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_address_that_refuses_is_an_error_that_does_not_repeat_it(
    status: int, address: AlertAddress
) -> None:
    address.status = status
    with pytest.raises(AlertError) as caught:
        tell(address)
    assert (
        caught.value.problem
        == f"The alert URL does not accept the message: it responds with status {status}."
    )
    assert caught.value.remedy == "Check LEDGERLINE_ALERT_URL."


def test_a_redirect_is_an_error_because_following_it_would_lose_the_message(address: AlertAddress) -> None:
    address.status, address.location = 302, "/elsewhere"
    with pytest.raises(AlertError, match="it responds with status 302"):
        tell(address)
    assert address.paths == ["POST /services/secret"]


def test_an_address_that_is_down_is_an_error_that_does_not_repeat_it(address: AlertAddress) -> None:
    address.stop()
    with pytest.raises(AlertError) as caught:
        tell(address)
    assert (
        str(caught.value) == "The alert URL cannot be reached: ConnectionError. Check LEDGERLINE_ALERT_URL."
    )
    assert caught.value.__cause__ is None


def test_an_invalid_address_is_an_error_without_the_address() -> None:
    with pytest.raises(AlertError) as caught:
        tell("http://:secret@")
    assert "secret" not in str(caught.value)


def test_an_address_that_never_responds_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        impatient = AlertResource(url=url, timeout_seconds=0.2)
        with pytest.raises(AlertError, match="ReadTimeout"):
            impatient.tell("flight_delay", Entry(7, PROMOTED), PROMOTED, End(AT, moved=True))


def test_no_secret_reaches_the_address(address: AlertAddress) -> None:
    alert = replace(
        PROMOTED, by="ada, token=hunter2hunter2", reason="as postgresql://me:hunter2@db/x says \x00\ud83d"
    )
    tell(address, alert)
    (message,) = address.messages
    assert "hunter2" not in str(message)
    assert message["reason"] == "as postgresql://me:[redacted]@db/x says \\x00\\ud83d"
    assert message["text"].endswith("as postgresql://me:[redacted]@db/x says \\x00\\ud83d")
    assert message["evidence_sha256"] == "abc"


def test_a_very_long_reason_leaves_a_text_that_chat_programs_take(address: AlertAddress) -> None:
    tell(address, replace(PROMOTED, reason="r" * 50_000))
    (message,) = address.messages
    assert len(message["text"]) == 4000
    assert "characters, sha256 " in message["text"]
