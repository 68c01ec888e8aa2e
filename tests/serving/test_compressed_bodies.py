"""Tests bodies that clients compress: unpacked within the limit of plain ones, or refused with a reason."""

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import requests
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.serving.bodies import MAX_MEMBERS, unpacked
from tests.serving.conftest import MODEL, Running, flight_rows

SECONDS = 120.0
MEGABYTE = 1024 * 1024
MOST = 1000

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


def refused(body: bytes, encodings: Sequence[str] = ("gzip",), most: int = MOST) -> tuple[int, str]:
    with pytest.raises(HTTPException) as found:
        unpacked(body, encodings, most)
    return found.value.status_code, str(found.value.detail)


# Unpacked bodies


@given(st.binary(max_size=MOST), st.sampled_from(list(PACK)), st.integers(0, 9))
def test_compressed_bodies_are_unpacked(content: bytes, encoding: str, level: int) -> None:
    body = gzip.compress(content, level) if "gzip" in encoding else zlib.compress(content, level)

    assert unpacked(body, [encoding], MOST) == content


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=10), st.integers(0, 600))
def test_several_members_are_one_body_and_trailing_zeros_are_ignored(parts: list[bytes], zeros: int) -> None:
    body = b"".join(map(gzip.compress, parts)) + bytes(zeros)

    assert unpacked(body, ["gzip"], MOST) == b"".join(parts)


def test_encodings_are_undone_from_the_last_to_the_first() -> None:
    assert unpacked(gzip.compress(zlib.compress(b"rows")), ["deflate", "gzip"], MOST) == b"rows"


def test_a_body_of_just_the_size_is_unpacked_and_one_byte_more_is_not() -> None:
    for encoding, pack in PACK.items():
        assert unpacked(pack(b"x" * MOST), [encoding], MOST) == b"x" * MOST
        status, message = refused(pack(b"x" * (MOST + 1)), [encoding])
        assert (status, message) == (413, "The body is larger than 1000 bytes when it is decompressed.")


def test_members_are_counted_together() -> None:
    assert refused(gzip.compress(b"x" * 600) * 2)[0] == 413


def test_a_bomb_in_a_bomb_is_counted_at_each_layer() -> None:
    assert refused(gzip.compress(gzip.compress(bytes(50 * MEGABYTE))), ["gzip", "gzip"], MEGABYTE)[0] == 413


def test_a_million_members_are_not_worked_through() -> None:
    status, message = refused(gzip.compress(b"") * (MAX_MEMBERS + 1), most=16 * MEGABYTE)

    assert (status, message) == (400, f"The body has more than {MAX_MEMBERS} gzip members.")


@pytest.mark.parametrize("encoding", list(PACK))
def test_a_body_that_was_cut_anywhere_is_refused(encoding: str) -> None:
    body = PACK[encoding](json.dumps(list(range(50))).encode())
    for end in range(len(body)):
        assert refused(body[:end], [encoding]) == (
            400,
            f"The body is truncated: its {encoding} data are incomplete.",
        )


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"{}", "gzip", "is not valid gzip data"),
        (b"{}", "deflate", "is not valid deflate data"),
        (zlib.compress(b"rows"), "gzip", "is not valid gzip data"),
        (gzip.compress(b"rows"), "deflate", "is not valid deflate data"),
        (gzip.compress(b"rows")[:-8] + bytes(8), "gzip", "is not valid gzip data"),
        (gzip.compress(b"rows")[:-4] + bytes(4), "gzip", "is not valid gzip data"),
        (gzip.compress(b"rows") + b"more", "gzip", "is not valid gzip data"),
        (gzip.compress(b"rows") + b"\0\0more", "gzip", "is not valid gzip data"),
        (zlib.compress(b"rows") + b"more", "deflate", "data after the end of its deflate data"),
        (zlib.compress(b"rows")[2:-4], "deflate", "is not valid deflate data"),
    ],
    # The bodies hold the time at which they were packed, and names of tests must not.
    ids=[
        "JSON as gzip",
        "JSON as deflate",
        "deflate as gzip",
        "gzip as deflate",
        "wrong checksum and length",
        "wrong length",
        "bytes behind gzip",
        "bytes behind zeros",
        "bytes behind deflate",
        "deflate without a header",
    ],
)
def test_bodies_that_are_not_of_the_encoding_are_refused(body: bytes, encoding: str, message: str) -> None:
    status, text = refused(body, [encoding])

    assert status == 400
    assert message in text


@given(st.binary(), st.sampled_from(list(PACK)))
def test_any_bytes_are_decompressed_or_refused(body: bytes, encoding: str) -> None:
    try:
        found = unpacked(body, [encoding], MOST)
    except HTTPException as error:
        found = str(error.status_code).encode()

    assert len(found) <= MOST


# HTTP requests, in both protocols


def body_of(path: str) -> bytes:
    rows = flight_rows(3, seed=5)[["distance", "hour", "holiday"]]
    if path == "/invocations":
        return json.dumps({"dataframe_records": rows.to_dict("records")}).encode()
    datatypes = {"distance": "FP64", "hour": "INT64", "holiday": "BOOL"}
    inputs: list[dict[str, Any]] = [
        {"name": name, "shape": [3], "datatype": datatype, "data": rows[name].tolist()}
        for name, datatype in datatypes.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


PATHS = ("/invocations", f"/v2/models/{MODEL}/infer")


def post(service: Running, path: str, body: bytes, encoding: str | None) -> requests.Response:
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
    return requests.post(f"{service.url}{path}", body, headers=headers, timeout=SECONDS)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("encoding", "packers"),
    [
        ("gzip", [gzip.compress]),
        ("GZIP", [gzip.compress]),
        ("x-gzip", [gzip.compress]),
        ("deflate", [zlib.compress]),
        ("identity", []),
        ("", []),
        ("identity, gzip", [gzip.compress]),
        ("deflate, gzip", [zlib.compress, gzip.compress]),
        ("gzip ,", [gzip.compress]),
    ],
)
def test_a_compressed_request_is_answered_like_a_plain_one(
    shared_service: Running, path: str, encoding: str, packers: list[Callable[[bytes], bytes]]
) -> None:
    plain = body = body_of(path)
    for pack in packers:
        body = pack(body)

    answer = post(shared_service, path, body, encoding)

    assert answer.status_code == 200, answer.text
    assert answer.content == post(shared_service, path, plain, None).content


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "gzip gzip", "ä", "gzip," * 3])
def test_an_encoding_that_is_not_known_is_refused_with_those_that_are(
    shared_service: Running, path: str, encoding: str
) -> None:
    answer = post(shared_service, path, gzip.compress(body_of(path)), encoding)

    assert answer.status_code == 415
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"
    message = answer.json()["error" if "v2" in path else "message"]
    assert message.endswith("Send it without an encoding, or in one of gzip, deflate.")


@pytest.mark.parametrize("path", PATHS)
def test_a_bomb_is_refused_before_it_is_unpacked(shared_service: Running, path: str) -> None:
    bomb = gzip.compress(bytes(100 * MEGABYTE))

    answer = post(shared_service, path, bomb, "gzip")

    assert answer.status_code == 413
    assert "larger than 16777216 bytes when it is decompressed" in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_a_broken_body_is_refused(shared_service: Running, path: str) -> None:
    for body in (body_of(path), gzip.compress(body_of(path))[:-1]):
        assert post(shared_service, path, body, "gzip").status_code == 400


# HEAD, as load balancers send it


@pytest.mark.parametrize(
    "path",
    [
        "/ping", "/health", "/ready", "/version", "/metrics", "/model", "/models", "/v2", "/v2/health/live",
        "/v2/health/ready", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready",
        f"/v2/models/{MODEL}/versions/1/ready", "/v2/models/another/ready",
    ],
)  # fmt: skip
def test_head_is_get_without_a_body(shared_service: Running, path: str) -> None:
    got, head = (
        requests.request(method, f"{shared_service.url}{path}", timeout=SECONDS) for method in ("GET", "HEAD")
    )

    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["Content-Type"] == got.headers["Content-Type"]


def test_head_is_not_post(shared_service: Running) -> None:
    assert requests.head(f"{shared_service.url}/invocations", timeout=SECONDS).status_code == 405
