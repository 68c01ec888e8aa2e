"""Reading the body of a request as far as it is of a size, and comes at a pace, that can be borne."""

import asyncio

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
