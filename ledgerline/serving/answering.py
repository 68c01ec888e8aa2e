"""Answering a request: how many at once, how long, by whom; and what it is told if it is not answered."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import Request
from starlette.exceptions import HTTPException

from ledgerline.serving import tracing
from ledgerline.serving.accounting import Account, account_of
from ledgerline.serving.batcher import ModelFailedError, OverdueError, Prediction, RequestRowsError
from ledgerline.serving.bodies import CLOSE, body_of, encodings_of, unpacked
from ledgerline.serving.follower import Served
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.request_logging import Answered
from ledgerline.serving.rows import Rows
from ledgerline.serving.schema import Problem, RowsRefusedError, Schema
from ledgerline.serving.scoring import BodyRefusedError, TooManyRowsError
from ledgerline.serving.service import Service

# To read more takes ten milliseconds, in which nobody else would be answered.
READ_IN_PLACE_BYTES = 512 * 1024

# A header that is longer than 64 KB as a whole is no answer to Python's own client, and to proxies 4 KB.
LISTED_COLUMNS, LISTED_CHARACTERS = 10, 64

Read = Callable[[bytes, Schema, int], tuple[Rows, Sequence[str]]]


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: Of the answer, by HTTP.
        message: Why, for whoever sent the request.
        problems: What is wrong with its rows.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        problems: Sequence[Problem] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.problems = problems
        self.headers = headers or {}


@dataclass
class Answering:
    """Answers requests with the models of a service.

    Attributes:
        service: The service.
    """

    service: Service
    _now: int = field(default=0, init=False)
    _tokens: tuple[bytes, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._tokens = tuple(_digest(token) for token in self.service.settings.tokens)

    def has_token(self, request: Request) -> bool:
        """Whether the request has a token, or none is needed."""
        if not self._tokens:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        digest = _digest(given.strip())
        # All of them, so that the time it takes tells nothing.
        known = [hmac.compare_digest(digest, token) for token in self._tokens]
        return scheme.lower() == "bearer" and any(known)

    def served(self, name: str | None, version: str | None = None) -> Served:
        """A model by its name; without one the default.

        Raises:
            RefusedError: It is not served here, or another version of it is.
        """
        if name is None:
            return self.service.default
        served = self.service.served.get(name)
        if served is None:
            known = ", ".join(self.service.served)
            raise RefusedError(404, f"No model {name!r} is served here; there is {known}.")
        if version is not None and (served.current is None or str(served.current.version.number) != version):
            answers = f"version {served.current.version.number}" if served.current else "none yet"
            raise RefusedError(404, f"Version {version!r} of {name} does not answer here; {answers} does.")
        return served

    def current(self, served: Served) -> LoadedModel:
        """Who answers for a model now.

        Raises:
            RefusedError: Nobody yet, or nobody any more: a thread that hangs cannot be ended.
        """
        if served.current is None:
            # The reason may name folders and servers, which are no business of who sends rows.
            raise RefusedError(
                503,
                f"No version of {served.followed.name} answers yet; GET /ready says why.",
                headers={"Retry-After": "1"},
            )
        if not self.service.answers(served.followed.name):
            raise RefusedError(
                503,
                f"{served.followed.name} version {served.current.version.number} hangs; this process must be "
                "started anew.",
            )
        return served.current

    async def answer(self, request: Request, served: Served, read: Read) -> Prediction:
        """Answer the rows in the body of a request.

        Args:
            request: The request.
            served: The model that is asked.
            read: Reads rows, and the columns in it that the model does not know, from a body.

        Raises:
            RefusedError: It cannot be answered.
            HTTPException: Its body is too large, too slow, or compressed in a way that is not known.
        """
        limits = self.service.settings.limits
        with self._among_others():
            # From here on it is this version's request, whoever takes over meanwhile.
            loaded = self.current(served)
            account = account_of(request)
            account.loaded = loaded
            tracing.tell_model(account.span, loaded, served.followed.alias)
            began, deadline = time.time(), time.monotonic() + limits.seconds
            encodings = encodings_of(request)
            body = await body_of(request, limits.body_bytes, limits.body_seconds)
            if encodings:
                body = await asyncio.to_thread(unpacked, body, encodings, limits.body_bytes)
            rows = await _rows(body, loaded.schema, limits.rows, read, account)
            prediction = await self._predict(loaded, rows, deadline)
        tracing.tell_prediction(account.span, prediction, began)
        self.service.shadow.offer(served, rows, prediction)
        if self.service.request_logger is not None:
            context = account.span.get_span_context()
            self.service.request_logger.log(
                Answered(
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
    def _among_others(self) -> Iterator[None]:
        most = self.service.settings.limits.requests
        if self._now >= most:
            raise RefusedError(
                429,
                f"{most} requests are being answered already; try again.",
                headers={"Retry-After": "1", **CLOSE},
            )
        self._now += 1
        try:
            yield
        finally:
            self._now -= 1

    async def _predict(self, loaded: LoadedModel, rows: Rows, deadline: float) -> Prediction:
        limit = self.service.settings.limits.seconds
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.service.predictors[loaded.name].predict(loaded, rows, deadline)
        except (TimeoutError, OverdueError):
            raise RefusedError(504, f"There was no answer within {limit:g} seconds.") from None
        except RequestRowsError:
            raise RefusedError(
                400, "The model cannot take these rows, though they are of the types it names."
            ) from None
        except ModelFailedError:
            raise RefusedError(503, "The model fails, whatever it is asked.") from None


async def _rows(body: bytes, schema: Schema, most_rows: int, read: Read, account: Account) -> Rows:
    try:
        if len(body) > READ_IN_PLACE_BYTES:
            rows, unknown = await asyncio.to_thread(read, body, schema, most_rows)
        else:
            rows, unknown = read(body, schema, most_rows)
    except BodyRefusedError as error:
        raise RefusedError(400, f"{error}.") from None
    except RowsRefusedError as error:
        raise RefusedError(400, f"{error}.", error.problems) from None
    except TooManyRowsError as error:
        raise RefusedError(413, f"{error}.") from None
    if unknown:
        listed = [name[:LISTED_CHARACTERS] for name in unknown[:LISTED_COLUMNS]]
        account.ignored = ", ".join(name for name in listed if name.isprintable())
    return rows


def refusal(error: HTTPException | RefusedError) -> RefusedError:
    """An error of Starlette as one of ours."""
    if isinstance(error, RefusedError):
        return error
    return RefusedError(error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
