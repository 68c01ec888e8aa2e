"""Reading the body of a request as far as it is of a size, and comes at a pace, that can be borne."""

import asyncio
import re
import zlib
from collections.abc import Sequence

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

# What comes after it is not read.
CLOSE = {"Connection": "close"}


async def body_of(request: Request, most_bytes: int, seconds: float) -> bytes:
    """The body.

    Raises:
        HTTPException: 413, it is larger; 408, it takes longer; 400, its sender went away.
    """
    too_large = HTTPException(413, f"The body is larger than {most_bytes} bytes.", headers=CLOSE)
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > most_bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(
            408, f"The body did not come within {seconds:g} seconds.", headers=CLOSE
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "The sender went away.", headers=CLOSE) from None
    return b"".join(chunks)


# `zlib` selects the formats of gzip (RFC 1952) and of zlib (RFC 1950, "deflate" in HTTP) by these numbers.
_FORMATS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
ENCODINGS = "gzip, deflate"
MAX_ENCODINGS = 2  # one over the other
# The bytes behind a member are copied for each member: hence the small pieces, and a limit of members.
PACKED_BYTES, MAX_MEMBERS = 16 * 1024, 10_000
_ZEROS = re.compile(rb"\0*\Z")


def encodings_of(request: Request) -> list[str]:
    """Return how the body of a request is compressed, in the order in which that was done.

    Raises:
        HTTPException: 415, it cannot be unpacked here.
    """
    said = ",".join(request.headers.getlist("Content-Encoding")).lower()
    encodings = [name for part in said.split(",") if (name := part.strip()) not in ("", "identity")]
    if len(encodings) > MAX_ENCODINGS or not _FORMATS.keys() >= set(encodings):
        raise HTTPException(
            415,
            f"The body is encoded as {said[:100]!a}; send it as it is, or as one of {ENCODINGS}.",
            headers={"Accept-Encoding": ENCODINGS, **CLOSE},
        )
    return encodings


def unpacked(body: bytes, encodings: Sequence[str], most_bytes: int) -> bytes:
    """Return a body as it was before it was compressed; no more of it is unpacked than is accepted.

    Raises:
        HTTPException: 413, it is larger; 400, it is not of this encoding, or ends too early.
    """
    for encoding in reversed(encodings):
        body = _unpacked(body, encoding, most_bytes)
    return body


def _unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    left, position = most_bytes, 0
    try:
        for _ in range(MAX_MEMBERS):
            stream = zlib.decompressobj(_FORMATS[encoding])
            while not stream.eof:
                packed = body[position : position + PACKED_BYTES]
                if not packed:
                    raise HTTPException(400, f"The body ends before its {encoding} does.")
                # One byte more than the limit is requested, which shows whether there is more.
                part = stream.decompress(packed, left + 1)
                left -= len(part)
                if left < 0:
                    text = f"The body is larger than {most_bytes} bytes when it is unpacked."
                    raise HTTPException(413, text)
                parts.append(part)
                position += len(packed) - len(stream.unused_data)
            # A file of gzip can have several members, and zeros behind the last.
            end = _ZEROS.match(body, position)
            if position == len(body) or (encoding != "deflate" and end is not None):
                return b"".join(parts)
            if encoding == "deflate":
                raise HTTPException(400, "There is something behind the end of the deflate of the body.")
    except zlib.error as error:
        raise HTTPException(400, f"The body cannot be unpacked: it is no {encoding} ({error}).") from None
    raise HTTPException(400, f"The body has more than {MAX_MEMBERS} members of {encoding}.")
