"""The load generator, a separate process: many clients without a pause, or requests at random times.

Its overhead is small and the same for every server: requests are prepared, and of a response only the length,
the status and the version are parsed.
"""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.context import BenchmarkError
from benchmarks.processes import HOST, spawned

OK = 200
END_SECONDS = 30.0  # a request without a response within this time has failed
MAX_WAITING = 10_000
MAX_RESPONSES = 100_000  # maximum number of distinct responses that are kept
LENGTH, VERSION = b"\r\ncontent-length:", b"\r\nx-model-version:"
FIELDS = f"POST /invocations HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: "

Arrival = tuple[float, int]  # the time of a request, and the index of its body
Line = asyncio.Queue[Arrival | None]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Order:
    """A load to send to a port on loopback.

    Attributes:
        bodies: Bodies of the requests, sent in turns.
        warm_seconds: Time before the measurement.
        rate: Requests per second at random times; None if each client sends again after each response.
    """

    port: int
    bodies: Sequence[str]
    clients: int
    warm_seconds: float
    seconds: float
    rate: float | None = None


@dataclass(frozen=True)
class Response:
    """A response to the body with this index; `version` is empty if it has no such header."""

    index: int
    status: int
    version: str
    body: str


@dataclass(frozen=True)
class Responses:
    """All responses of a load.

    Attributes:
        begun: Time at which each request was sent, in seconds since the start of the measurement.
        seconds: Latency of each request.
        different: Distinct responses, with their counts.
        problems: Reasons for requests without a response, with their counts.
        duration: Duration of the measurement in seconds.
    """

    begun: NDArray[np.float64]
    seconds: NDArray[np.float64]
    different: Counter[Response]
    problems: Counter[str]
    duration: float

    @property
    def failed(self) -> int:
        """Return the number of requests without a response or with an error."""
        refused = sum(count for response, count in self.different.items() if response.status != OK)
        return refused + self.problems.total()

    @property
    def per_second(self) -> float:
        """Return the responses per second."""
        return len(self.seconds) / self.duration

    def percentile(self, share: float) -> float:
        """Return a percentile of the latency in milliseconds."""
        return percentile(self.seconds, share)

    @property
    def reasons(self) -> list[str]:
        """Return the first reasons of failures."""
        refused = [f"{each.status} {each.body[:200]}" for each in self.different if each.status != OK]
        return [*refused[:3], *(f"{count} times: {text}" for text, count in self.problems.most_common(3))]


@dataclass(frozen=True)
class Running:
    """A load generator that is measuring."""

    process: BaseProcess
    pipe: Connection
    max_seconds: float

    def stop(self) -> Responses:
        """End the load now."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> Responses:
        """Wait for the end of the load.

        Raises:
            BenchmarkError: The load generator failed.
        """
        if not self.pipe.poll(self.max_seconds + END_SECONDS + 10):
            raise BenchmarkError("The load generator does not end.")
        return _received(self.pipe)


@contextmanager
def load(order: Order) -> Iterator[Running]:
    """Run a load, from the end of its warm-up until the end of the `with` block."""
    with spawned(_generate, order) as (process, pipe):
        _received(pipe)  # when the warm-up has ended
        yield Running(process, pipe, order.seconds)


def responses_to(order: Order) -> Responses:
    """Return the responses of a whole load."""
    with load(order) as running:
        return running.wait()


def percentile(seconds: NDArray[np.float64], share: float) -> float:
    """Return a percentile in milliseconds."""
    if len(seconds) == 0:
        raise BenchmarkError("No request has a response.")
    return 1000 * float(np.percentile(seconds, share))


def together(parts: Sequence[Responses]) -> Responses:
    """Combine the responses of several loads."""
    return Responses(
        np.concatenate([part.begun for part in parts]),
        np.concatenate([part.seconds for part in parts]),
        sum((part.different for part in parts), Counter()),
        sum((part.problems for part in parts), Counter()),
        sum(part.duration for part in parts),
    )


@dataclass
class _Load:
    order: Order
    pipe: Connection
    times: list[tuple[float, float]] = field(default_factory=list)
    responses: Counter[tuple[int, bytes, bytes, bytes]] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    begun: float = 0.0
    until: float = 0.0

    async def run(self) -> Responses:
        """Send requests for the ordered time; the pipe receives None when the warm-up has ended."""
        bodies = [body.encode() for body in self.order.bodies]
        requests = [f"{FIELDS}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        # The first response of a server may take seconds.
        async with asyncio.timeout(END_SECONDS):
            await _response(await self._connected(None), requests[0])
        self.begun = time.perf_counter() + self.order.warm_seconds
        self.until = self.begun + self.order.seconds
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.call_later(self.order.warm_seconds, self.pipe.send, None)
        tasks = [asyncio.ensure_future(each) for each in self._work(requests)]
        ended: set[asyncio.Task[None]] = set()
        while len(ended) < len(tasks) and time.perf_counter() < self.until + END_SECONDS:
            ended, _ = await asyncio.wait(tasks, timeout=1)
        for task in set(tasks) - ended:
            task.cancel()
            self.problems[f"no response within {END_SECONDS:.0f} s of the end"] += 1
        for task in ended:
            task.result()
        different: Counter[Response] = Counter()
        for (index, status, version, body), count in self.responses.items():
            text = body.decode(errors="replace")
            different[Response(index, int(status), version.decode(), text)] += count
        begun, seconds = np.array(self.times, dtype=float).reshape(-1, 2).T
        return Responses(begun, seconds, different, self.problems, self.until - self.begun)

    def _stop(self) -> None:
        self.until = min(self.until, time.perf_counter())

    def _work(self, requests: Sequence[bytes]) -> list[Coroutine[Any, Any, None]]:
        clients = range(self.order.clients)
        if self.order.rate is None:
            # Each client begins with a different body.
            step = max(1, len(requests) // len(clients))
            return [self._client(requests, self._without_pause(number * step)) for number in clients]
        line: Line = asyncio.Queue()
        queued = [self._client(requests, self._from(line)) for _ in clients]
        return [self._arrive(line, self.order.rate), *queued]

    async def _without_pause(self, first: int) -> AsyncIterator[Arrival]:
        for number in itertools.count(first):
            if (now := time.perf_counter()) >= self.until:
                return
            yield now, number

    async def _from(self, line: Line) -> AsyncIterator[Arrival]:
        while (arrival := await line.get()) is not None:
            yield arrival

    async def _arrive(self, line: Line, rate: float) -> None:
        """Add requests to the queue at random times, from which their latency is measured."""
        due, dice = time.perf_counter(), random.Random(2013)  # noqa: S311 (times, not secrets)
        for number in itertools.count():
            due += dice.expovariate(rate)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            now = time.perf_counter()
            if now >= self.until:
                break
            if line.qsize() < MAX_WAITING:
                line.put_nowait((now, number))
            else:
                self.problems["not sent, because too many requests wait"] += 1
        for _ in range(self.order.clients):
            line.put_nowait(None)

    async def _client(self, requests: Sequence[bytes], arrivals: AsyncIterator[Arrival]) -> None:
        streams = await self._connected(None)
        async for begun, number in arrivals:
            streams, index = await self._connected(streams), number % len(requests)
            try:
                head, body = await _response(streams, requests[index])
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.problems[f"the connection is lost: {error}"] += 1
                continue
            if begun < self.begun:
                continue
            self.times.append((begun - self.begun, time.perf_counter() - begun))
            key = (index, head[9:12], _value_of(VERSION, head), body)
            if len(self.responses) < MAX_RESPONSES or key in self.responses:
                self.responses[key] += 1
            else:
                self.problems["more different responses than can be kept"] += 1

    async def _connected(self, streams: Streams | None) -> Streams:
        """Return the connection if it is open, and a new one otherwise."""
        while streams is None or streams[0].at_eof():
            try:
                streams = await asyncio.open_connection(HOST, self.order.port)
            except OSError as error:
                self.problems[f"no connection: {error}"] += 1
                if time.perf_counter() >= self.until:
                    raise
                await asyncio.sleep(0.1)
        return streams


async def _response(streams: Streams, request: bytes) -> tuple[bytes, bytes]:
    """Send a request; return the head of its response in lower case, and the body."""
    reader, writer = streams
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return head, await reader.readexactly(int(_value_of(LENGTH, head)))


def _value_of(name: bytes, head: bytes) -> bytes:
    """Return the value of a header from a head in lower case; empty if the header is missing."""
    return head.partition(name)[2].partition(b"\r\n")[0].strip()


def _generate(order: Order, pipe: Connection) -> None:
    pipe.send(uvloop.run(_Load(order, pipe).run()))


def _received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise BenchmarkError("The load generator failed; its error is above.") from None
