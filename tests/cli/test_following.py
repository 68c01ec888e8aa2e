"""Tests `ledgerline observe --follow` as a separate process."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread

import dagster as dg
import pytest
from mlflow import MlflowClient

from ledgerline.dagster.settings import Settings
from ledgerline.ledger.cursors import Cursors
from ledgerline.testing.loopback_servers import Refusal, listening
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.waiting import wait_until
from ledgerline.testing.written_runs import begin
from tests.cli.command_lines import LEDGERLINE
from tests.cli.observed_planes import executed, is_exported, traced, tracked
from tests.project import PROJECT_ROOT

pytestmark = pytest.mark.usefixtures("mlflow_with_tables")

PATIENCE_SECONDS = 180  # until a test is given up, also on a machine that has much else to do


class Follower:
    """`ledgerline observe --follow`, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines: list[str] = []
        self._reader = Thread(target=self.lines.extend, args=(process.stdout,))
        self._reader.start()

    def with_text(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    def has_line(self, pattern: str) -> bool:
        """Return whether a printed line matches."""
        return any(re.match(pattern, line) for line in self.lines)

    def wait_for(self, text: str) -> None:
        """Wait until it prints this."""

        def printed() -> bool:
            assert self.process.poll() is None, f"it ended: {self.lines}"
            return bool(self.with_text(text))

        wait_until(printed, f"it says {text!r}")

    def end(self, number: signal.Signals) -> None:
        """Send a signal, and wait until it has ended."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join()


@contextmanager
def following(settings: Settings, **variables: str) -> Iterator[Follower]:
    """Start the command as a script starts a background process, which ignores Ctrl-C by default."""
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" observe --follow', LEDGERLINE],
        env={**os.environ, "LEDGERLINE_HOME": str(settings.home), **variables},
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    follower = Follower(process)
    try:
        follower.wait_for("Following the runs of")
        yield follower
    finally:
        process.kill()
        process.wait()
        follower._reader.join()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_are_exported_as_they_happen_until_a_signal_ends_the_command(
    settings: Settings, instance: dg.DagsterInstance, client: MlflowClient, number: signal.Signals
) -> None:
    with following(settings) as follower:
        run_id = executed(instance)
        wait_until(lambda: is_exported(client, run_id), "the run is shown to its end")
        for projection in ("traces", "mlflow"):
            # The number of parts depends on the polls, and a busy target may have failed for a moment.
            line = rf"\d\d:\d\d:\d\d  {projection:<12}1 runs updated, [1-9]\d* items written, [01] followed$"
            wait_until(partial(follower.has_line, line), f"{projection} has said so")
        follower.end(number)
        assert follower.process.returncode == 0, follower.lines
        assert follower.with_text("Traceback") == []
        assert follower.with_text("cannot be exported") == []
    assert "fleet" in traced(client, run_id)
    assert tracked(client) == [run_id]


def test_a_signal_ends_the_command_before_everything_is_exported(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    for _ in range(20):
        begin(instance).end()
    with following(settings) as follower:
        follower.wait_for("mlflow")
        follower.end(signal.SIGTERM)
        assert follower.process.returncode == 0
        # Both projections began at once, with all that they import.
        assert follower.with_text("cannot be exported") == []
    cursors = Cursors.load(instance.run_storage, "mlflow")
    assert cursors is not None
    assert None in cursors.active.values()  # it had not read these


def test_a_target_that_is_down_is_reported_once_and_so_is_its_return(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    with listening(Receiver(refuses=lambda batch: Refusal(503))) as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with following(settings, **variables) as follower:
            run_id = executed(instance)
            wait_until(lambda: receiver.requests >= 4, "it has tried again")
            assert receiver.trace_ids == set()
            receiver.refuses = lambda batch: None
            follower.wait_for("The target is available again.")
            assert "fleet" in {span.name for span in receiver.trace(run_id).spans}
            follower.end(signal.SIGTERM)
    (down,) = follower.with_text("does not accept traces")
    assert receiver.url in down
    assert len(follower.with_text("The target is available again.")) == 1


def test_a_signal_ends_the_command_while_a_target_does_not_respond(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    begin(instance).end()
    with (
        listening(Receiver()) as receiver,
        following(settings, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as follower,
    ):
        asked, answered = Event(), Event()

        def answer_late(batch: object) -> None:
            asked.set()
            answered.wait()

        receiver.refuses = answer_late
        begin(instance).end()
        try:
            assert asked.wait(PATIENCE_SECONDS)
            follower.end(signal.SIGTERM)
        finally:
            answered.set()
        assert follower.process.returncode == 0, follower.lines
        assert follower.with_text("Traceback") == []


def test_a_signal_ends_the_command_while_its_output_is_not_read(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    output = bytearray()
    reader, writer = os.pipe()
    with (
        listening(Receiver()) as receiver,
        open(reader, "rb", buffering=0) as read,
        open(writer, "wb") as pipe,
    ):
        process = subprocess.Popen(
            [LEDGERLINE, "observe", "--follow"],
            env={
                **os.environ,
                "LEDGERLINE_HOME": str(settings.home),
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            },
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.STDOUT,
        )
        try:
            os.set_blocking(reader, False)

            def follows() -> bool:
                assert process.poll() is None, output
                output.extend(read.read() or b"")
                return b"Following" in output

            wait_until(follows, "it follows")
            os.set_blocking(writer, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(writer, b"\n")
            os.set_blocking(writer, True)
            begin(instance).end()

            def has_line_to_print() -> bool:
                cursors = Cursors.load(instance.run_storage, "traces")
                return receiver.requests > 0 and cursors is not None and bool(cursors.active)

            wait_until(has_line_to_print, "a thread waits for its line to be read")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0, (read.read() or b"")[-3000:]
        finally:
            process.kill()
            process.wait()


def test_an_instance_that_cannot_be_read_for_a_while_is_reported_and_followed_again(
    settings: Settings, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_id = executed(instance)
    database = settings.dagster_home / "history" / "runs.db"
    away = database.with_name("away.db")
    with following(settings) as follower:
        follower.wait_for("mlflow")
        database.rename(away)
        database.mkdir()
        follower.wait_for(f"{settings.dagster_home} cannot be read: ")
        database.rmdir()
        away.rename(database)
        follower.wait_for("The target is available again.")
        follower.end(signal.SIGTERM)
        assert follower.process.returncode == 0
    assert tracked(client) == [run_id]
