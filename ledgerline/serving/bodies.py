"""Reads and decompresses the bodies of requests, within limits of size and time."""

import asyncio
import re
import zlib
from collections.abc import Sequence

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

# The rest of the connection is not read.
CLOSE = {"Connection": "close"}


async def body_of(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: The status is 413 if the body exceeds the size limit, 408 if it exceeds the time limit,
            and 400 if the client disconnects.
    """
    too_large = HTTPException(413, f"The body is larger than {max_bytes} bytes.", headers=CLOSE)
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > max_bytes:
                    raise too_large
    except TimeoutError:
        text = f"The body did not arrive within {seconds:g} seconds."
        raise HTTPException(408, text, headers=CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "The client disconnected.", headers=CLOSE) from None
    return b"".join(chunks)


# `zlib` selects the formats of gzip (RFC 1952) and of zlib (RFC 1950, "deflate" in HTTP) by these numbers.
_FORMATS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
ENCODINGS = "gzip, deflate"
MAX_ENCODINGS = 2  # one applied after the other
# zlib copies the rest of its input for each member of a gzip file, hence the small pieces and the limit of
# members.
CHUNK_BYTES, MAX_MEMBERS = 16 * 1024, 10_000
_ZEROS = re.compile(rb"\0*\Z")


def encodings_of(request: Request) -> list[str]:
    """Return the content encodings of a request, in the order in which they were applied.

    Raises:
        HTTPException: The status is 415 if an encoding is not supported.
    """
    header = ",".join(request.headers.getlist("Content-Encoding")).lower()
    encodings = [name for part in header.split(",") if (name := part.strip()) not in ("", "identity")]
    if len(encodings) > MAX_ENCODINGS or not _FORMATS.keys() >= set(encodings):
        raise HTTPException(
            415,
            f"The body is encoded as {header[:100]!a}, which is not supported. Send it without an encoding, "
            f"or in one of {ENCODINGS}.",
            headers={"Accept-Encoding": ENCODINGS, **CLOSE},
        )
    return encodings


def unpacked(body: bytes, encodings: Sequence[str], max_bytes: int) -> bytes:
    """Decompress a body, up to `max_bytes`.

    Raises:
        HTTPException: The status is 413 if the content is larger, and 400 if the body has another encoding or
            is truncated.
    """
    for encoding in reversed(encodings):
        body = _unpacked(body, encoding, max_bytes)
    return body


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    left, position = max_bytes, 0
    try:
        for _ in range(MAX_MEMBERS):
            stream = zlib.decompressobj(_FORMATS[encoding])
            while not stream.eof:
                packed = body[position : position + CHUNK_BYTES]
                if not packed:
                    raise HTTPException(400, f"The body is truncated: its {encoding} data are incomplete.")
                # One byte more than the limit shows whether the body is larger.
                part = stream.decompress(packed, left + 1)
                left -= len(part)
                if left < 0:
                    text = f"The body is larger than {max_bytes} bytes when it is decompressed."
                    raise HTTPException(413, text)
                parts.append(part)
                position += len(packed) - len(stream.unused_data)
            # A gzip file can have several members, and zeros after the last.
            end = _ZEROS.match(body, position)
            if position == len(body) or (encoding != "deflate" and end is not None):
                return b"".join(parts)
            if encoding == "deflate":
                raise HTTPException(400, "The body has data after the end of its deflate data.")
    except zlib.error as error:
        raise HTTPException(400, f"The body is not valid {encoding} data: {error}.") from None
    raise HTTPException(400, f"The body has more than {MAX_MEMBERS} {encoding} members.")
