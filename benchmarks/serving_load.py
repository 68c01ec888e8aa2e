"""The process that asks a server, as many clients or at a given rate. Who starts it: serving_clients.py.

    python -m benchmarks.serving_load FOLDER

It reads `order.json` in the folder, says "measuring" when it has warmed up, ends after the ordered time or
on SIGTERM, and leaves `found.json` and `times.bin` there. It costs little, and the same whoever is asked:
what it sends is prepared, and of what comes only the length, the status and the version are read.
"""

import asyncio
import itertools
import json
import random
import signal
import sys
import time
from array import array
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

ORDER, FOUND, TIMES = "order.json", "found.json", "times.bin"
MEASURING = "measuring"

# Who has no answer by then gets none: each of them counts as failed.
END_SECONDS = 30.0
MAX_WAITING = 10_000
MAX_ANSWERS = 100_000  # that are kept; each different one is kept once

HEAD_END = b"\r\n\r\n"
LENGTH, VERSION = b"\r\ncontent-length:", b"\r\nx-model-version:"


@dataclass(frozen=True)
class Order:
    """What is to be asked.

    Attributes:
        host: Of the server.
        port: Of the server.
        bodies: Of the requests, in turns.
        clients: Connections.
        warm_seconds: Time before the measuring.
        seconds: Time of the measuring.
        rate: Requests a second, at random moments; None: each client asks when it has its answer.
    """

    host: str
    port: int
    bodies: Sequence[str]
    clients: int
    warm_seconds: float
    seconds: float
    rate: float | None = None

    def write(self, folder: Path) -> None:
        """Leave it for the process."""
        (folder / ORDER).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "Order":
        """What was left."""
        return cls(**json.loads((folder / ORDER).read_text()))

    def requests(self) -> list[bytes]:
        """As they are sent."""
        made = []
        for body in map(str.encode, self.bodies):
            head = (
                f"POST /invocations HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            made.append(head.encode() + body)
        return made


class Connection(asyncio.Protocol):
    """A connection that is kept, for one request after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head = self._end = 0
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio has it."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        """As asyncio has it."""
        self._buffer += data
        if self._end == 0:
            self._head = self._buffer.find(HEAD_END)
            if self._head < 0:
                return
            head = self._buffer[: self._head].lower()
            self._end = self._head + len(HEAD_END) + int(value_of(LENGTH, head))
        if len(self._buffer) >= self._end and self._answer is not None:
            head, body = bytes(self._buffer[: self._head]), bytes(self._buffer[self._head + 4 : self._end])
            del self._buffer[: self._end]
            self._end = 0
            if not self._answer.done():
                self._answer.set_result((head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio has it."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the connection is lost: {exc or 'it was closed'}"))
        self._transport = None

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request; gives the head and the body of its answer."""
        if self._transport is None:
            raise ConnectionError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()


@dataclass
class Load:
    """Asks, and writes down what comes.

    Attributes:
        order: What is to be asked.
    """

    order: Order
    times: "array[float]" = field(default_factory=lambda: array("d"), init=False)
    answers: "Counter[tuple[int, bytes, bytes, bytes]]" = field(default_factory=Counter, init=False)
    problems: Counter[str] = field(default_factory=Counter, init=False)
    begun: float = field(default=0.0, init=False)
    until: float = field(default=0.0, init=False)

    async def run(self) -> None:
        """Ask for as long as is ordered."""
        await self._wake()
        self.begun = time.perf_counter() + self.order.warm_seconds
        self.until = self.begun + self.order.seconds
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.call_later(self.order.warm_seconds, print, MEASURING)
        work = self._at_rate(self.order.rate) if self.order.rate else self._one_after_another()
        tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
        ended: set[asyncio.Task[None]] = set()
        while len(ended) < len(tasks) and time.perf_counter() < self.until + END_SECONDS:
            ended, _ = await asyncio.wait(tasks, timeout=1)
        for task in set(tasks) - ended:
            task.cancel()
            self.problems[f"no answer within {END_SECONDS:.0f} s of the end"] += 1
        for task in ended:
            task.result()

    async def _wake(self) -> None:
        """Ask once, and wait: a server may do things at its first answer that take seconds."""
        connection = await self._connected(None)
        async with asyncio.timeout(END_SECONDS):
            await connection.ask(self.order.requests()[0])
        connection.close()

    def stop(self) -> None:
        """Ask nothing any more."""
        self.until = min(self.until, time.perf_counter())

    def _one_after_another(self) -> "list[Coroutine[Any, Any, None]]":
        requests = self.order.requests()
        # Each begins elsewhere, so that not all of them ask the same.
        step = max(1, len(requests) // self.order.clients)
        return [self._client(requests, number * step) for number in range(self.order.clients)]

    async def _client(self, requests: Sequence[bytes], first: int) -> None:
        connection = await self._connected(None)
        for number in itertools.count(first):
            started = time.perf_counter()
            if started >= self.until:
                break
            index = number % len(requests)
            await self._ask(connection, requests[index], index, started)
            connection = await self._connected(connection)
        connection.close()

    def _at_rate(self, rate: float) -> "list[Coroutine[Any, Any, None]]":
        requests = self.order.requests()
        # When each came, as a caller without a free connection would count.
        line: asyncio.Queue[tuple[float, int] | None] = asyncio.Queue()
        return [
            self._arrivals(line, rate, len(requests)),
            *(self._served(line, requests) for _ in range(self.order.clients)),
        ]

    async def _arrivals(
        self, line: "asyncio.Queue[tuple[float, int] | None]", rate: float, kinds: int
    ) -> None:
        due = time.perf_counter()
        dice = random.Random(2013)  # noqa: S311 (moments, not secrets)
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
                self.problems["not even sent: too many wait"] += 1
        for _ in range(self.order.clients):
            line.put_nowait(None)

    async def _served(
        self, line: "asyncio.Queue[tuple[float, int] | None]", requests: Sequence[bytes]
    ) -> None:
        connection = await self._connected(None)
        while (asked := await line.get()) is not None:
            started, index = asked
            connection = await self._connected(connection)
            await self._ask(connection, requests[index], index, started)
        connection.close()

    async def _connected(self, connection: Connection | None) -> Connection:
        """This one while it is open; then another."""
        if connection is not None and connection.is_open:
            return connection
        while True:
            try:
                loop = asyncio.get_running_loop()
                return (await loop.create_connection(Connection, self.order.host, self.order.port))[1]
            except OSError as error:
                self.problems[f"no connection: {error}"] += 1
                if time.perf_counter() >= self.until:
                    raise
                await asyncio.sleep(0.1)

    async def _ask(self, connection: Connection, request: bytes, index: int, started: float) -> None:
        try:
            head, body = await connection.ask(request)
        except ConnectionError as error:
            self.problems[str(error)] += 1
            return
        if started < self.begun:
            return
        self.times.extend((started - self.begun, time.perf_counter() - started))
        key = (index, head[9:12], value_of(VERSION, head.lower()), body)
        if len(self.answers) < MAX_ANSWERS or key in self.answers:
            self.answers[key] += 1
        else:
            self.problems["answers are more different than can be kept"] += 1

    def write(self, folder: Path) -> None:
        """Leave what came."""
        with (folder / TIMES).open("wb") as file:
            self.times.tofile(file)
        answers = [
            [index, int(status), version.decode(), body.decode(errors="replace"), count]
            for (index, status, version, body), count in self.answers.items()
        ]
        told = {"begun": self.begun, "until": self.until, "answers": answers, "problems": self.problems}
        (folder / FOUND).write_text(json.dumps(told))


def value_of(name: bytes, head: bytes | bytearray) -> bytes:
    """The value of a header, from a head in small letters; empty without."""
    _, found, rest = head.partition(name)
    return bytes(rest.partition(b"\r\n")[0].strip()) if found else b""


def main() -> None:
    """Ask what is ordered."""
    folder = Path(sys.argv[1])
    load = Load(Order.read(folder))
    uvloop.run(load.run())
    load.write(folder)


if __name__ == "__main__":
    main()
