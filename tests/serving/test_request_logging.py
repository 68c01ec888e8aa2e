"""Tests the request logger: it accepts every prediction, and counts each one that it loses."""

import logging
import os
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ledgerline.requests.logged_rows import inputs_of, outputs_of, redacted_columns
from ledgerline.requests.request_log import read
from ledgerline.serving.request_logging import AnsweredRequest, RequestLogger
from ledgerline.serving.rows import Rows
from tests.project import PROJECT_ROOT

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
PLENTY = 10**9
# A test that waits so long for something fails.
SECONDS = 120


class Count:
    """Reported rows, and a way to wait for them."""

    def __init__(self) -> None:
        self.rows = 0
        self._changed = threading.Condition()

    def __call__(self, rows: int) -> None:
        with self._changed:
            self.rows += rows
            self._changed.notify_all()

    def wait_for(self, rows: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.rows >= rows, SECONDS), f"{self.rows} of {rows} rows"


class Logging:
    """A logger with its counts, in a folder of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written, self.dropped = Count(), Count()

    def logger(self, *redacted: str, max_bytes: int = PLENTY, **limits: Any) -> RequestLogger:
        """One that writes when it is stopped, unless told otherwise."""
        return RequestLogger(
            self.folder,
            frozenset(redacted),
            max_bytes,
            on_dropped=self.dropped,
            on_written=self.written,
            **{"flush_seconds": 3600, **limits},
        )

    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.parquet"))


@pytest.fixture
def logging_to(tmp_path: Path) -> Logging:
    return Logging(tmp_path / "requests")


def answer(number: int, rows: int = 1, *, version: int = 1, carrier: object = "UA") -> AnsweredRequest:
    carriers = np.array([carrier] * rows, dtype=object)
    scores = np.array([[0.75, 0.25]] * rows)
    return AnsweredRequest(
        at=NOON.timestamp() + number,
        request_id=f"request {number}",
        model="flight_delay",
        version=version,
        trace_id=f"{number:032x}",
        seconds=0.012,
        inputs=Rows({"carrier": carriers, "temp": np.full(rows, 39.5)}, rows),
        outputs=Rows({"": scores}, rows),
    )


def test_logged_requests_are_read_back(logging_to: Logging) -> None:
    logger = logging_to.logger()
    logger.start()
    logger.log(answer(1, rows=2))
    logger.log(answer(2))
    logger.stop()
    frame = read(logging_to.folder, "flight_delay", NOON)
    assert frame[["request_id", "row", "version", "seconds"]].to_numpy().tolist() == [
        ["request 1", 0, 1, 0.012],
        ["request 1", 1, 1, 0.012],
        ["request 2", 0, 1, 0.012],
    ]
    assert frame["trace_id"].iloc[2] == f"{2:032x}"
    assert frame["at"].iloc[2].timestamp() == NOON.timestamp() + 2
    assert inputs_of(frame).to_dict("list") == {"carrier": ["UA"] * 3, "temp": [39.5] * 3}
    assert outputs_of(frame)[""].tolist() == [[0.75, 0.25]] * 3
    assert (logging_to.written.rows, logging_to.dropped.rows) == (3, 0)


def test_a_flush_is_one_file_for_each_version(logging_to: Logging) -> None:
    logger = logging_to.logger()
    logger.start()
    for number in range(6):
        logger.log(answer(number, version=1 + number % 2))
    logger.stop()
    assert len(logging_to.files()) == 2
    versions = [set(pq.ParquetFile(file).read()["version"].to_pylist()) for file in logging_to.files()]
    assert sorted(versions, key=min) == [{1}, {2}]
    assert set(read(logging_to.folder, "flight_delay", NOON)["version"]) == {1, 2}


def test_it_writes_by_itself_after_some_time(logging_to: Logging) -> None:
    logger = logging_to.logger(flush_seconds=0.01)
    logger.start()
    logger.log(answer(1))
    logging_to.written.wait_for(1)
    logger.log(answer(2))
    logging_to.written.wait_for(2)
    assert len(read(logging_to.folder, "flight_delay", NOON)) == 2
    logger.stop()


def test_many_rows_do_not_wait_for_the_time(logging_to: Logging) -> None:
    logger = logging_to.logger(flush_rows=3)
    logger.start()
    logger.log(answer(1, rows=2))
    logger.log(answer(2, rows=2))
    logging_to.written.wait_for(4)
    logger.stop()


def test_stopping_writes_the_remaining_rows_and_accepts_no_more(logging_to: Logging) -> None:
    logger = logging_to.logger()
    logger.start()
    logger.log(answer(1, rows=5))
    logger.stop()
    logger.log(answer(2))
    logger.stop()
    assert (logging_to.written.rows, logging_to.dropped.rows) == (5, 1)


def test_stopping_is_limited_in_time(logging_to: Logging, caplog: pytest.LogCaptureFixture) -> None:
    is_writing, may_go_on = threading.Event(), threading.Event()
    logger = logging_to.logger(flush_seconds=0.01, stop_seconds=0.01)

    def slowly(rows: int) -> None:
        is_writing.set()
        may_go_on.wait(SECONDS)

    logger.on_written = slowly
    logger.start()
    logger.log(answer(1, version=1))
    logger.log(answer(2, version=2))
    assert is_writing.wait(SECONDS)
    logger.stop()
    assert "1 rows were not written to the request log in time" in caplog.text
    assert logging_to.dropped.rows == 1
    may_go_on.set()


def test_rows_beyond_the_limit_are_dropped_and_counted(logging_to: Logging) -> None:
    logger = logging_to.logger(max_rows=4)
    for number in range(3):
        logger.log(answer(number, rows=2))
    logger.log(answer(9, rows=5))
    assert logging_to.dropped.rows == 2 + 5
    logger.start()
    logger.stop()
    assert logging_to.written.rows == 4


def test_room_is_made_by_writing(logging_to: Logging) -> None:
    logger = logging_to.logger(max_rows=4, flush_seconds=0.01)
    logger.start()
    for number in range(5):
        logger.log(answer(number, rows=4))
        logging_to.written.wait_for(4 * (number + 1))
    logger.stop()
    assert logging_to.dropped.rows == 0


def test_never_started_it_drops_and_counts(logging_to: Logging) -> None:
    logger = logging_to.logger()
    logger.log(answer(1, rows=3))
    logger.stop()
    assert logging_to.dropped.rows == 3


def test_redacted_columns_are_empty_and_of_the_same_type(logging_to: Logging) -> None:
    logger = logging_to.logger("carrier", "1")
    logger.start()
    logger.log(answer(1, carrier="SECRET"))
    logger.stop()
    (file,) = logging_to.files()
    assert b"SECRET" not in file.read_bytes()
    schema = pq.read_schema(file)
    assert [str(schema.field(name).type) for name in ("input.carrier", "output.1")] == ["string", "double"]
    frame = read(logging_to.folder, "flight_delay", NOON)
    assert frame[["input.carrier", "output.1"]].isna().all(axis=None)
    assert redacted_columns(frame) == ["input.carrier", "output.1"]


def test_a_folder_that_cannot_be_written_is_logged_once_and_tried_again(
    logging_to: Logging, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    logging_to.folder.write_text("in the way")
    logger = logging_to.logger(flush_seconds=0.01)
    logger.start()
    for number in (1, 2):
        logger.log(answer(number))
        logging_to.dropped.wait_for(number)
    logging_to.folder.unlink()
    logger.log(answer(3))
    logging_to.written.wait_for(1)
    logger.stop()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert f"The request log in {logging_to.folder} cannot be written: " in caplog.messages[0]
    assert caplog.messages[1] == f"The request log in {logging_to.folder} is written again."
    assert list(read(logging_to.folder, "flight_delay", NOON)["request_id"]) == ["request 3"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.serving.test_request_logging import Logging, answer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logging_to = Logging(Path(sys.argv[1]))
logger = logging_to.logger(flush_seconds=0.01)
logger.start()
logger.log(answer(1))
logging_to.written.wait_for(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
logger.log(answer(2, rows=2))
logging_to.dropped.wait_for(2)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
logger.log(answer(3))
logging_to.written.wait_for(2)
logger.stop()
print(logging_to.written.rows, logging_to.dropped.rows)
"""


def test_rows_are_dropped_only_while_the_disk_is_full(logging_to: Logging) -> None:
    service = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(logging_to.folder)],
        cwd=PROJECT_ROOT,
        env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert service.stdout.split() == ["2", "2"]
    assert "File too large" in service.stderr
    assert list(read(logging_to.folder, "flight_delay", NOON)["request_id"]) == ["request 1", "request 3"]
    assert [path.name for path in logging_to.folder.rglob(".*")] == []


def test_rows_with_values_that_no_file_can_hold_are_dropped_alone(
    logging_to: Logging, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging_to.logger()
    logger.start()
    logger.log(answer(1, carrier=object(), version=1))
    logger.log(answer(2, version=2))
    logger.stop()
    assert (logging_to.written.rows, logging_to.dropped.rows) == (1, 1)
    assert "cannot be written" in caplog.text


def test_the_log_keeps_within_its_room(logging_to: Logging) -> None:
    logger = logging_to.logger(max_bytes=1, flush_seconds=0.01)
    logger.start()
    for number in (1, 2, 3):
        logger.log(answer(number))
        logging_to.written.wait_for(number)
    logger.stop()
    assert list(read(logging_to.folder, "flight_delay", NOON)["request_id"]) == ["request 3"]


def test_half_a_file_of_a_killed_service_is_removed_at_the_next_start(logging_to: Logging) -> None:
    folder = logging_to.folder / "flight_delay"
    folder.mkdir(parents=True)
    (folder / ".writing-20261103T120000000000Z_20261103T120000000000Z_1-0.parquet").write_bytes(b"PAR1 half")
    logger = logging_to.logger()
    logger.start()
    logger.stop()
    assert list(folder.iterdir()) == []


def test_a_failing_listener_does_not_fail_the_log(
    logging_to: Logging, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(rows: int) -> None:
        raise RuntimeError("no such counter")

    logger = RequestLogger(logging_to.folder, frozenset(), PLENTY, 3600, failing, failing)
    logger.start()
    logger.log(answer(1))
    logger.stop()
    logger.log(answer(2))
    assert len(read(logging_to.folder, "flight_delay", NOON)) == 1
    assert caplog.text.count("no such counter") >= 2


def test_it_imports_neither_mlflow_nor_dagster() -> None:
    program = (
        "import sys, ledgerline.serving.request_logging; print({'mlflow', 'dagster'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
