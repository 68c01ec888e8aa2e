"""Predicts for requests, within the limits of the service: tokens, sizes, concurrency and time."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from fastapi import Request

from ledgerline.serving import tracing
from ledgerline.serving.accounting import account_of
from ledgerline.serving.batcher import ModelFailedError, OverdueError, Prediction, RequestRowsError
from ledgerline.serving.bodies import CLOSE, body_of, encodings_of, unpacked
from ledgerline.serving.follower import Served
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.request_errors import RequestError
from ledgerline.serving.request_logging import AnsweredRequest
from ledgerline.serving.rows import Rows
from ledgerline.serving.schema import Schema
from ledgerline.serving.service import Service

# Reading a larger body takes more than ten milliseconds; a thread does it, so that the event loop is not
# blocked.
READ_IN_PLACE_BYTES = 512 * 1024

# Python's own client refuses headers of more than 64 KB in all, and many proxies of more than 4 KB.
MAX_LISTED_COLUMNS, MAX_LISTED_CHARACTERS = 10, 64

# Returns the rows of a body, and its columns that the model does not take.
Read = Callable[[bytes, Schema, int], tuple[Rows, Sequence[str]]]


@dataclass
class Answering:
    """Answers requests with the active versions of a service."""

    service: Service
    _in_progress: int = field(default=0, init=False)

    @cached_property
    def _tokens(self) -> tuple[bytes, ...]:
        return tuple(_digest(token) for token in self.service.settings.tokens)

    def has_token(self, request: Request) -> bool:
        """Return whether the request has a valid token, or the service requires no token."""
        if not self._tokens:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        digest = _digest(given.strip())
        # All tokens are compared, so that the duration reveals nothing.
        known = [hmac.compare_digest(digest, token) for token in self._tokens]
        return scheme.lower() == "bearer" and any(known)

    def served(self, name: str | None, version: str | None = None) -> Served:
        """Return a model by its name, or the default model.

        Raises:
            RequestError: The model is not served here, or another version of it is active.
        """
        if name is None:
            return self.service.default
        served = self.service.served.get(name)
        if served is None:
            known = ", ".join(self.service.served)
            raise RequestError(f"No model {name!r} is served here; there is {known}.", status=404)
        if version is not None and (served.current is None or str(served.current.version.number) != version):
            loaded = served.current
            active = f"version {loaded.version.number} is" if loaded else "no version is active yet"
            raise RequestError(f"Version {version!r} of {name} is not active; {active}.", status=404)
        return served

    def current(self, served: Served) -> LoadedModel:
        """Return the active version of a model.

        Raises:
            RequestError: No version is active yet, or the thread of its predictions hangs and cannot be
                killed.
        """
        if served.current is None:
            # The reason may name folders and servers, which clients should not see.
            raise RequestError(
                f"No version of {served.followed.name} is active yet; GET /ready has the reason.",
                status=503,
                headers={"Retry-After": "1"},
            )
        if not self.service.answers(served.followed.name):
            version = f"{served.followed.name} version {served.current.version.number}"
            raise RequestError(f"{version} hangs; this process must be restarted.", status=503)
        return served.current

    async def answer(self, request: Request, served: Served, read: Read) -> Prediction:
        """Predict the rows in the body of a request.

        Raises:
            RequestError: The request cannot be answered.
            HTTPException: The body is too large, arrives too slowly, or has an encoding that is not
                supported.
        """
        settings = self.service.settings
        with self._counted():
            # The version stays the same for this request, even if another version is activated meanwhile.
            loaded = self.current(served)
            account = account_of(request)
            account.loaded = loaded
            tracing.record_model(account.span, loaded, served.followed.alias)
            began, deadline = time.time(), time.monotonic() + settings.timeout_seconds
            encodings = encodings_of(request)
            body = await body_of(request, settings.body_bytes, settings.body_seconds)
            if encodings:
                body = await asyncio.to_thread(unpacked, body, encodings, settings.body_bytes)
            if len(body) > READ_IN_PLACE_BYTES:
                rows, unknown = await asyncio.to_thread(read, body, loaded.schema, settings.max_rows)
            else:
                rows, unknown = read(body, loaded.schema, settings.max_rows)
            if unknown:
                listed = [name[:MAX_LISTED_CHARACTERS] for name in unknown[:MAX_LISTED_COLUMNS]]
                account.ignored = ", ".join(name for name in listed if name.isprintable())
            prediction = await self._predict(loaded, rows, deadline)
        tracing.record_prediction(account.span, prediction, began)
        self.service.shadow.offer(served, rows, prediction)
        if self.service.request_logger is not None:
            context = account.span.get_span_context()
            self.service.request_logger.log(
                AnsweredRequest(
                    at=began,
                    request_id=account.request_id,
                    model=loaded.name,
                    version=loaded.version.number,
                    trace_id=f"{context.trace_id:032x}" if context.is_valid else "",
                    seconds=time.time() - began,
                    inputs=rows,
                    outputs=prediction.outputs,
                )
            )
        return prediction

    @contextmanager
    def _counted(self) -> Iterator[None]:
        limit = self.service.settings.max_requests
        if self._in_progress >= limit:
            raise RequestError(
                f"The limit of {limit} concurrent requests is reached.",
                "Try again later.",
                status=429,
                headers={"Retry-After": "1", **CLOSE},
            )
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1

    async def _predict(self, loaded: LoadedModel, rows: Rows, deadline: float) -> Prediction:
        limit = self.service.settings.timeout_seconds
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.service.batchers[loaded.name].predict(loaded, rows, deadline)
        except (TimeoutError, OverdueError):
            raise RequestError(f"The prediction took longer than {limit:g} seconds.", status=504) from None
        # The message of the model is only logged, because it may contain data that clients should not see.
        except RequestRowsError:
            raise RequestError("The model fails on these rows, although they fit its signature.") from None
        except ModelFailedError:
            raise RequestError("The model fails on every request.", status=503) from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
