"""Starting the load generator, and what it found. How it asks: serving_load.py."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import BenchmarkError, environment_of, started, wait_until
from benchmarks.serving_load import END_SECONDS, FOUND, MEASURING, TIMES, Order

OK = 200


@dataclass(frozen=True)
class Answer:
    """An answer that came, once or more often.

    Attributes:
        index: Of the body that was sent.
        status: Of the answer, by HTTP.
        version: What its header says; empty without.
        body: The answer.
        count: How often it came.
    """

    index: int
    status: int
    version: str
    body: str
    count: int


@dataclass(frozen=True)
class Answers:
    """All that came.

    Attributes:
        begun: When each request was sent, in seconds since the measuring began.
        seconds: How long each took.
        different: Each different answer.
        problems: Why requests have no answer, and how often.
        duration: Of the measuring, in seconds.
    """

    begun: NDArray[np.float64]
    seconds: NDArray[np.float64]
    different: Sequence[Answer]
    problems: Mapping[str, int]
    duration: float

    @property
    def count(self) -> int:
        """How many requests were answered, with whatever."""
        return len(self.seconds)

    @property
    def failed(self) -> int:
        """How many were not, or with an error."""
        refused = sum(answer.count for answer in self.different if answer.status != OK)
        return refused + sum(self.problems.values())

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.count / self.duration

    def percentile(self, share: float) -> float:
        """What so many percent of the requests took at most, in milliseconds."""
        return percentile(self.seconds, share)

    def why_failed(self) -> list[str]:
        """The first reasons."""
        refused = [f"{answer.status} {answer.body[:200]}" for answer in self.different if answer.status != OK]
        return [*refused[:3], *(f"{count} times: {text}" for text, count in list(self.problems.items())[:3])]


@dataclass
class Asking:
    """A load generator at work.

    Attributes:
        process: It.
        folder: Where it leaves what it finds.
        most_seconds: How long it takes, if it is not ended before.
    """

    process: "subprocess.Popen[bytes]"
    folder: Path
    most_seconds: float
    _answers: Answers | None = field(default=None, init=False)

    def stop(self) -> Answers:
        """End it now."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> Answers:
        """Wait for its end.

        Raises:
            BenchmarkError: It found nothing.
        """
        if self._answers is None:
            try:
                code = self.process.wait(self.most_seconds + END_SECONDS + 10)
            except subprocess.TimeoutExpired:
                raise BenchmarkError("The load generator does not end.") from None
            if code != 0:
                said = (self.folder / "load.log").read_text(errors="replace")[-3000:]
                raise BenchmarkError(f"The load generator ended with code {code}: {said}")
            self._answers = _read(self.folder)
        return self._answers


@contextmanager
def asking(folder: Path, order: Order) -> Iterator[Asking]:
    """A load, from the end of its warming up; ended with the body."""
    folder.mkdir(parents=True, exist_ok=True)
    order.write(folder)
    log = folder / "load.log"
    command = [sys.executable, "-m", "benchmarks.serving_load", str(folder)]
    with started(command, environment_of({}), log) as process:
        wait_until(lambda: MEASURING in log.read_text(), "the load generator", process, log)
        yield Asking(process, folder, order.seconds)


def asked(folder: Path, order: Order) -> Answers:
    """All of a load."""
    with asking(folder, order) as load:
        return load.wait()


def percentile(seconds: NDArray[np.float64], share: float) -> float:
    """What so many percent take at most, in milliseconds."""
    if len(seconds) == 0:
        raise BenchmarkError("No request was answered.")
    return 1000 * float(np.percentile(seconds, share))


def together(parts: Sequence[Answers]) -> Answers:
    """What came in several loads, as if it were one."""
    problems: dict[str, int] = {}
    for part in parts:
        for text, count in part.problems.items():
            problems[text] = problems.get(text, 0) + count
    return Answers(
        begun=np.concatenate([part.begun for part in parts]),
        seconds=np.concatenate([part.seconds for part in parts]),
        different=[answer for part in parts for answer in part.different],
        problems=problems,
        duration=sum(part.duration for part in parts),
    )


def _read(folder: Path) -> Answers:
    found = json.loads((folder / FOUND).read_text())
    times = np.fromfile(folder / TIMES).reshape(-1, 2)
    return Answers(
        begun=times[:, 0],
        seconds=times[:, 1],
        different=[Answer(*answer) for answer in found["answers"]],
        problems=found["problems"],
        duration=found["until"] - found["begun"],
    )
