"""The load generator, a separate process: many clients without a pause, or requests at random times.

    python -m benchmarks.serving.load FOLDER

It reads `order.json` in the folder, prints "measuring" once it has warmed up, ends after the ordered time or
on SIGTERM, and writes `responses.json`. Its overhead is small and the same for every server: requests are
prepared, and of a response only the length, the status and the version are parsed.
"""

import asyncio
import itertools
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

ORDER, RESPONSES, MEASURING = "order.json", "responses.json", "measuring"
END_SECONDS = 30.0  # a request without a response within this time has failed
MAX_WAITING = 10_000
MAX_RESPONSES = 100_000  # maximum number of distinct responses that are kept
LENGTH, VERSION = b"\r\ncontent-length:", b"\r\nx-model-version:"

Line = asyncio.Queue[tuple[float, int] | None]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Order:
    """A load to send.

    Attributes:
        port: Port of the server on loopback.
        bodies: Bodies of the requests, sent in turns.
        clients: Number of connections.
        warm_seconds: Time before the measurement.
        seconds: Time of the measurement.
        rate: Requests per second at random times; None if each client sends again after each response.
    """

    port: int
    bodies: Sequence[str]
    clients: int
    warm_seconds: float
    seconds: float
    rate: float | None = None

    def write(self, folder: Path) -> None:
        """Write the order for the process."""
        (folder / ORDER).write_text(json.dumps(asdict(self)))

    @property
    def requests(self) -> list[bytes]:
        """Return the bytes of each request."""
        fields = ("POST /invocations HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
        head = "\r\n".join((*fields, "Content-Length: "))
        return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in map(str.encode, self.bodies)]


@dataclass
class Load:
    """Sends the requests of an order, and records the responses."""

    order: Order
    times: list[tuple[float, float]] = field(default_factory=list, init=False)
    responses: "Counter[tuple[int, bytes, bytes, bytes]]" = field(default_factory=Counter, init=False)
    problems: Counter[str] = field(default_factory=Counter, init=False)
    begun: float = field(default=0.0, init=False)
    until: float = field(default=0.0, init=False)

    async def run(self) -> None:
        """Send requests for the ordered time."""
        requests = self.order.requests
        # The first response of a server may take seconds.
        async with asyncio.timeout(END_SECONDS):
            await _response(await self._connected(None), requests[0])
        self.begun = time.perf_counter() + self.order.warm_seconds
        self.until = self.begun + self.order.seconds
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.call_later(self.order.warm_seconds, print, MEASURING)
        tasks = [asyncio.ensure_future(coroutine) for coroutine in self._work(requests)]
        ended: set[asyncio.Task[None]] = set()
        while len(ended) < len(tasks) and time.perf_counter() < self.until + END_SECONDS:
            ended, _ = await asyncio.wait(tasks, timeout=1)
        for task in set(tasks) - ended:
            task.cancel()
            self.problems[f"no response within {END_SECONDS:.0f} s of the end"] += 1
        for task in ended:
            task.result()

    def stop(self) -> None:
        """Stop sending requests."""
        self.until = min(self.until, time.perf_counter())

    def write(self, folder: Path) -> None:
        """Write the responses."""
        responses = [
            [index, int(status), version.decode(), body.decode(errors="replace"), count]
            for (index, status, version, body), count in self.responses.items()
        ]
        results = {"times": self.times, "responses": responses, "problems": self.problems}
        (folder / RESPONSES).write_text(json.dumps({**results, "duration": self.until - self.begun}))

    def _work(self, requests: Sequence[bytes]) -> list[Coroutine[Any, Any, None]]:
        clients = range(self.order.clients)
        if self.order.rate is None:
            # Each client begins with a different body.
            step = max(1, len(requests) // len(clients))
            return [self._client(requests, number * step) for number in clients]
        line: Line = asyncio.Queue()
        arrivals = self._arrivals(line, self.order.rate, len(requests))
        return [arrivals, *(self._waiting_client(line, requests) for _ in clients)]

    async def _client(self, requests: Sequence[bytes], first: int) -> None:
        connection = await self._connected(None)
        for number in itertools.count(first):
            begun = time.perf_counter()
            if begun >= self.until:
                return
            index = number % len(requests)
            await self._send(connection, requests[index], index, begun)
            connection = await self._connected(connection)

    async def _arrivals(self, line: Line, rate: float, kinds: int) -> None:
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
                line.put_nowait((now, number % kinds))
            else:
                self.problems["not sent, because too many requests wait"] += 1
        for _ in range(self.order.clients):
            line.put_nowait(None)

    async def _waiting_client(self, line: Line, requests: Sequence[bytes]) -> None:
        connection = await self._connected(None)
        while (arrival := await line.get()) is not None:
            begun, index = arrival
            connection = await self._connected(connection)
            await self._send(connection, requests[index], index, begun)

    async def _connected(self, connection: Connection | None) -> Connection:
        """Return the connection if it is open, and a new one otherwise."""
        while connection is None or connection[0].at_eof():
            try:
                connection = await asyncio.open_connection("127.0.0.1", self.order.port)
            except OSError as error:
                self.problems[f"no connection: {error}"] += 1
                if time.perf_counter() >= self.until:
                    raise
                await asyncio.sleep(0.1)
        return connection

    async def _send(self, connection: Connection, request: bytes, index: int, begun: float) -> None:
        try:
            head, body = await _response(connection, request)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.problems[f"the connection is lost: {error}"] += 1
            return
        if begun < self.begun:
            return
        self.times.append((begun - self.begun, time.perf_counter() - begun))
        key = (index, head[9:12], value_of(VERSION, head), body)
        if len(self.responses) < MAX_RESPONSES or key in self.responses:
            self.responses[key] += 1
        else:
            self.problems["more different responses than can be kept"] += 1


async def _response(connection: Connection, request: bytes) -> tuple[bytes, bytes]:
    """Send a request; return the head of its response in lower case, and the body."""
    reader, writer = connection
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return head, await reader.readexactly(int(value_of(LENGTH, head)))


def value_of(name: bytes, head: bytes | bytearray) -> bytes:
    """Return the value of a header from a head in lower case; empty if the header is missing."""
    _, present, rest = head.partition(name)
    return bytes(rest.partition(b"\r\n")[0].strip()) if present else b""


def main() -> None:
    """Read the order, send its requests, and write the responses."""
    folder = Path(sys.argv[1])
    load = Load(Order(**json.loads((folder / ORDER).read_text())))
    uvloop.run(load.run())
    load.write(folder)


if __name__ == "__main__":
    main()
