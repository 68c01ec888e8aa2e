"""Starts the load generator (load.py) and reads its responses."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.context import BenchmarkError
from benchmarks.processes import started, tail, wait_for
from benchmarks.serving.load import END_SECONDS, MEASURING, RESPONSES, Order

OK = 200


@dataclass(frozen=True)
class Response:
    """A response and the number of times it was received; `version` is empty if it has no such header."""

    index: int
    status: int
    version: str
    body: str
    count: int


@dataclass(frozen=True)
class Responses:
    """All responses of a load.

    Attributes:
        begun: Time at which each request was sent, in seconds since the start of the measurement.
        seconds: Latency of each request.
        different: Distinct responses.
        problems: Reasons for requests without a response, with their counts.
        duration: Duration of the measurement in seconds.
    """

    begun: NDArray[np.float64]
    seconds: NDArray[np.float64]
    different: Sequence[Response]
    problems: Mapping[str, int]
    duration: float

    @property
    def failed(self) -> int:
        """Return the number of requests without a response or with an error."""
        refused = sum(response.count for response in self.different if response.status != OK)
        return refused + sum(self.problems.values())

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
        return [*refused[:3], *(f"{count} times: {text}" for text, count in list(self.problems.items())[:3])]


@dataclass(frozen=True)
class Running:
    """A load generator that is measuring."""

    process: "subprocess.Popen[bytes]"
    folder: Path
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
        try:
            code = self.process.wait(self.max_seconds + END_SECONDS + 10)
        except subprocess.TimeoutExpired:
            raise BenchmarkError("The load generator does not end.") from None
        if code != 0:
            raise BenchmarkError(
                f"The load generator ended with code {code}: {tail(self.folder / 'load.log')}"
            )
        results = json.loads((self.folder / RESPONSES).read_text())
        times = np.array(results["times"], dtype=float).reshape(-1, 2)
        different = [Response(*each) for each in results["responses"]]
        return Responses(times[:, 0], times[:, 1], different, results["problems"], results["duration"])


@contextmanager
def load(folder: Path, order: Order) -> Iterator[Running]:
    """Run a load, from the end of its warm-up until the end of the `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    order.write(folder)
    log = folder / "load.log"
    with started([sys.executable, "-m", "benchmarks.serving.load", str(folder)], {}, log) as process:
        wait_for(lambda: MEASURING in log.read_text(), "the load is measured", process, log)
        yield Running(process, folder, order.seconds)


def responses_to(folder: Path, order: Order) -> Responses:
    """Return the responses of a whole load."""
    with load(folder, order) as running:
        return running.wait()


def percentile(seconds: NDArray[np.float64], share: float) -> float:
    """Return a percentile in milliseconds."""
    if len(seconds) == 0:
        raise BenchmarkError("No request has a response.")
    return 1000 * float(np.percentile(seconds, share))


def together(parts: Sequence[Responses]) -> Responses:
    """Combine the responses of several loads."""
    problems: dict[str, int] = {}
    for part in parts:
        for text, count in part.problems.items():
            problems[text] = problems.get(text, 0) + count
    return Responses(
        begun=np.concatenate([part.begun for part in parts]),
        seconds=np.concatenate([part.seconds for part in parts]),
        different=[response for part in parts for response in part.different],
        problems=problems,
        duration=sum(part.duration for part in parts),
    )
