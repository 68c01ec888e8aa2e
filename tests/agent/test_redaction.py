"""Which secrets are found in a text, in whatever it is written, and what is none."""

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.redaction import REDACTED, SHORTEST_SECRET, Redaction

redact = Redaction()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:pass%40word@db:5432/x", f"postgresql://{REDACTED}@db:5432/x"),
        ("http://:only@host/", f"http://{REDACTED}@host/"),
        ("Authorization: Bearer abc.def-123_xyz", f"Authorization: Bearer {REDACTED}"),
        ("authorization: basic dXNlcjpwYXNz", f"authorization: basic {REDACTED}"),
        ("password=hunter22;user=me", f"password={REDACTED};user=me"),
        ("PGPASSWORD=hunter22 psql", f"PGPASSWORD={REDACTED} psql"),
        ("HF_TOKEN: abcdef123", f"HF_TOKEN: {REDACTED}"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7", f"aws_secret_access_key = {REDACTED}"),
        ('{"api_key": "abc def, ghi", "n": 1}', f'{{"api_key": "{REDACTED}", "n": 1}}'),
        ("{'password': 'it, too'}", f"{{'password': '{REDACTED}'}}"),
        (r"{\"password\": \"hunter22\", \"n\": 1}", rf"{{\"password\": \"{REDACTED}\", \"n\": 1}}"),
        (r'"password": "with \" quote", "n": 1', f'"password": "{REDACTED}", "n": 1'),
        ('"password=""hunter22"""', f'"password=""{REDACTED}"""'),
        ("sk-proj-abcDEF12345-67890abcDEF_x", REDACTED),
        ("sk-1234567890abcdef1234", REDACTED),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", REDACTED),
        ("AKIAABCDEFGHIJKLMNOP", REDACTED),
        ("xoxb-1234567890-abc", REDACTED),
        ("AIza" + "x" * 35, REDACTED),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", REDACTED),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", REDACTED),
        ("-----BEGIN PRIVATE KEY-----\nMIIE, cut off", REDACTED),
    ],
)
def test_a_secret_is_known_by_its_form(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(f"before {text} after").startswith(f"before {expected[:5]}")


@pytest.mark.parametrize(
    "text",
    [
        "How many flights were cancelled at JFK on 2013-02-08?",
        "SELECT carrier, count(*) FROM flights WHERE origin = 'JFK' GROUP BY carrier",
        "The basic information about the flights",
        "1,200 tokens: 26 in, 10 out",
        "https://example.org:8443/a?id=1#top and me@example.org",
        "sk-learn-is-not-a-key, nor is task-1234567890123456",
        "The secret of a punctual airline",
        'The password: ""',
        "N14228,UA,EWR",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(min_size=SHORTEST_SECRET, max_size=40, alphabet=st.characters(codec="utf-8")))
def test_a_known_secret_is_found_however_it_is_written(secret: str) -> None:
    redaction = Redaction.of([secret, None, "", "short"])
    for written in (
        secret,
        json.dumps({"a": [secret]}),
        json.dumps(secret, ensure_ascii=False),
        f"https://example.org/?key={quote(secret, safe='')}",
        quote_plus(secret),
    ):
        shown = redaction(written)
        assert REDACTED in shown
        assert secret not in shown.replace(REDACTED, "")


def test_the_longer_of_two_secrets_is_taken_out_whole() -> None:
    assert Redaction.of(["secret", "secret-and-more"])("a secret-and-more") == f"a {REDACTED}"


def test_a_short_one_is_not_looked_for() -> None:
    assert Redaction.of(["a", "abcde"]).known == ()


@pytest.mark.parametrize(
    "part", ["a-", "a.", "sk-", "eyJ-", "http://a", "password", "token:", '\\"', "-----BEGIN PRIVATE KEY"]
)
def test_no_text_takes_long(part: str) -> None:
    text = part * (200_000 // len(part))
    assert len(redact(text)) <= len(text) + len(REDACTED) * 200_000
