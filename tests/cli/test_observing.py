"""`ledgerline observe` and `ledgerline trace`: what they show, where, and what a mistake is answered with."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from ledgerline.cli.main import app
from ledgerline.cli.observing import ObservingError, named_run
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.cursors import Cursors
from ledgerline.testing.loopback_servers import Refusal, listening
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.ports import HOST
from ledgerline.testing.waiting import wait_until
from ledgerline.testing.written_runs import begin
from tests.project import EXPERIMENT, PROJECT_ROOT

NO_RUN = "00000000-0000-0000-0000-000000000000"
LEDGERLINE = Path(sys.executable).with_name("ledgerline")
PATIENCE_SECONDS = 180  # until a test is given up, also on a machine that has much else to do

Observe = Callable[..., Result]


@dg.asset
def planes() -> int:
    return 3


@dg.asset
def fleet(planes: int) -> int:
    return planes


@pytest.fixture(autouse=True)
def mlflow_with_tables(settings: Settings, mlflow_template: Path) -> None:
    """Creating them takes seconds."""
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    return MlflowClient(settings.tracking_uri)


@pytest.fixture
def nobody() -> Iterator[str]:
    """Address of a port that nobody listens on: it is bound, so that nobody else can take it."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield f"http://{HOST}:{bound.getsockname()[1]}"


@pytest.fixture
def ledgerline(settings: Settings) -> Observe:
    def invoke(*arguments: str, **variables: str) -> Result:
        environment = {"LEDGERLINE_HOME": str(settings.home), "COLUMNS": "120", **variables}
        return CliRunner().invoke(app, list(arguments), env=environment)

    return invoke


def executed(instance: dg.DagsterInstance) -> str:
    return dg.materialize([planes, fleet], instance=instance).run_id


def traced(client: MlflowClient, run_id: str) -> set[str]:
    """Names of the spans of a run in MLflow."""
    trace = client.get_trace(f"tr-{run_id.replace('-', '')}")
    return {span.name for span in trace.data.spans}


def tracked(client: MlflowClient) -> list[str]:
    """The Dagster runs that MLflow has a run of, one for each."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    return sorted(run.data.tags["dagster.run_id"] for run in client.search_runs([experiment.experiment_id]))


# Mistakes


@pytest.mark.parametrize(
    "arguments", [[], [NO_RUN, "--all"], [NO_RUN, "--follow"], ["--all", "--follow"]], ids=" ".join
)
def test_it_says_what_can_be_observed_unless_it_is_told_one_thing(
    ledgerline: Observe, arguments: list[str]
) -> None:
    result = ledgerline("observe", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("`ledgerline observe` needs exactly one of a run id, --all and --follow.")


@pytest.mark.parametrize("arguments", [[NO_RUN], ["--follow"]], ids=" ".join)
def test_a_time_without_all_is_refused(ledgerline: Observe, arguments: list[str]) -> None:
    result = ledgerline("observe", *arguments, "--since", "12h")
    assert (result.exit_code, result.stderr) == (
        2,
        "--since works only with --all. Add --all, or omit --since.\n",
    )


@pytest.mark.parametrize(
    "time", ["yesterday", "12", "12x", "-3d", "", "2026-13-01", "99999999999w", "99999999d"]
)
def test_what_is_no_time_is_named_with_what_would_be(ledgerline: Observe, time: str) -> None:
    result = ledgerline("observe", "--all", f"--since={time}")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"{time!r} is not a time. Write 2026-01-31, 2026-01-31T12:00, or an age such as 12h or 7d.\n"
    )


@pytest.mark.parametrize("command", ["observe", "trace"])
def test_a_run_that_is_not_there_is_named_with_where_it_was_looked_for(
    ledgerline: Observe, settings: Settings, command: str
) -> None:
    result = ledgerline(command, NO_RUN)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"There is no run {NO_RUN} in {settings.dagster_home}.")


def test_a_run_may_be_named_by_its_first_characters_or_as_its_trace_is() -> None:
    first, second = "2271abcd-0000-4000-8000-000000000001", "2299abcd-0000-4000-8000-000000000002"
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(ObservingError, match=r"^There is no run 22 in .*\.$"):
            named_run(instance, "22")
        for run_id in (first, second):
            instance.add_run(dg.DagsterRun("job", run_id=run_id))
        assert named_run(instance, first) == first
        assert named_run(instance, "2271ABCD") == first
        assert named_run(instance, second.replace("-", "")) == second
        with pytest.raises(ObservingError, match=f"2 runs begin with 22, of which {second} is the latest"):
            named_run(instance, "22")
        for text in ("3", "", "-"):
            with pytest.raises(ObservingError, match=f"There is no run {text} in .* The latest is {second}"):
                named_run(instance, text)


@pytest.mark.parametrize("command", [["observe", "--all"], ["observe", "--follow"], ["trace", NO_RUN]])
def test_a_folder_that_is_no_instance_is_named_and_does_not_become_one(
    ledgerline: Observe, tmp_path: Path, command: list[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "nothing"):
        result = ledgerline(*command, "--dagster-home", str(folder))
        assert result.exit_code == 2
        assert result.stderr.startswith(f"{folder} is not a Dagster instance")
        assert "DAGSTER_HOME" in result.stderr
    assert list(empty.iterdir()) == []


def test_an_address_that_cannot_be_used_is_named_before_anything_is_shown(
    ledgerline: Observe, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_id = executed(instance)
    result = ledgerline("observe", run_id, OPENLINEAGE_URL="marquez.example")
    assert result.exit_code == 2
    assert result.stderr.startswith("OPENLINEAGE_URL cannot be used; set it to an address")
    assert tracked(client) == []


# One run


def test_a_run_is_shown_as_a_trace_and_as_an_mlflow_run(
    ledgerline: Observe, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_id, other = executed(instance), executed(instance)
    result = ledgerline("observe", run_id)
    assert result.exit_code == 0, result.output
    assert {"planes", "fleet"} <= traced(client, run_id)
    assert tracked(client) == [run_id]
    assert other not in result.output


def test_a_target_that_is_down_is_named_and_the_others_are_shown(
    ledgerline: Observe, instance: dg.DagsterInstance, client: MlflowClient, nobody: str
) -> None:
    run_id = executed(instance)
    result = ledgerline("observe", run_id, OTEL_EXPORTER_OTLP_ENDPOINT=nobody, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert result.exit_code == 1
    assert f"Run {run_id} was not exported (traces): {nobody}" in result.stdout
    assert "Traceback" not in result.output
    assert tracked(client) == [run_id]


def test_a_run_that_cannot_be_shown_is_named_with_the_reason(
    ledgerline: Observe, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    run_id = executed(instance)
    result = ledgerline("observe", run_id)
    assert result.exit_code == 1
    assert f"Run {run_id} was not exported (mlflow): The MLflow experiment" in result.stdout
    assert "Traceback" not in result.output


# All runs


def test_all_runs_are_shown_and_once_more_makes_no_difference(
    ledgerline: Observe, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_ids = sorted(executed(instance) for _ in range(3))
    for _ in range(2):
        result = ledgerline("observe", "--all")
        assert result.exit_code == 0, result.output
        assert "100%" in result.stdout
        assert result.stdout.endswith("3 runs exported.\n")
        assert tracked(client) == run_ids
        for run_id in run_ids:
            spans = client.get_trace(f"tr-{run_id.replace('-', '')}").data.spans
            assert len({span.span_id for span in spans}) == len(spans)


def test_more_runs_than_are_read_together_are_all_shown(
    ledgerline: Observe, instance: dg.DagsterInstance, settings: Settings
) -> None:
    runs = [begin(instance) for _ in range(51)]
    for run in runs:
        run.end()
    # The slower of the two targets is down.
    no_database = f"sqlite:///{settings.home}/mlflow.db/in-a-file"
    with listening(Receiver()) as receiver:
        result = ledgerline(
            "observe", "--all", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, MLFLOW_TRACKING_URI=no_database
        )
        assert receiver.trace_ids == {run.run_id.replace("-", "") for run in runs}
    assert result.exit_code == 1
    assert f"{len(runs)} runs were not exported (mlflow), for example " in result.stdout


def test_where_there_are_no_runs_it_says_so(ledgerline: Observe) -> None:
    result = ledgerline("observe", "--all")
    assert (result.exit_code, result.stdout) == (0, "There are no runs to export.\n")


@pytest.mark.parametrize(
    ("since", "shown"), [("90m", ["new"]), ("2d", ["new", "old"]), ("4w", ["new", "old"]), ("date", ["new"])]
)
def test_only_runs_since_then_are_shown(
    ledgerline: Observe,
    instance: dg.DagsterInstance,
    client: MlflowClient,
    since: str,
    shown: list[str],
) -> None:
    day = 24 * 3600
    if since == "date":
        since = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() - day / 2))
    ages = {"old": day, "new": 60}
    runs = {name: begin(instance, seconds_ago=age) for name, age in ages.items()}
    for name, run in runs.items():
        run.end(seconds_ago=ages[name] - 1)
    result = ledgerline("observe", "--all", "--since", since)
    assert result.exit_code == 0, result.output
    assert tracked(client) == sorted(runs[name].run_id for name in shown)


def test_when_a_target_is_down_all_runs_are_tried_and_the_same_again_shows_the_rest(
    ledgerline: Observe, instance: dg.DagsterInstance, client: MlflowClient
) -> None:
    run_ids = [executed(instance) for _ in range(2)]
    with listening(Receiver()) as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        receiver.stop()
        result = ledgerline("observe", "--all", **variables)
        assert result.exit_code == 1
        assert f"2 runs were not exported (traces), for example {run_ids[0]}: {receiver.url}" in result.stdout
        assert run_ids[1] not in result.stdout
        assert result.stdout.endswith("Some runs could not be exported. Repeating the command is safe.\n")
        assert tracked(client) == sorted(run_ids)

        verbose = ledgerline("observe", "--all", "-v", **variables)
        for run_id in run_ids:
            assert verbose.stdout.count(f"Run {run_id} was not exported (traces): {receiver.url}") == 1
        assert "for example" not in verbose.stdout

        receiver.start()
        assert ledgerline("observe", "--all", **variables).exit_code == 0
        for run_id in run_ids:
            assert "fleet" in {span.name for span in receiver.trace(run_id).spans}


# A trace, here


def test_the_trace_of_a_run_is_printed_as_a_tree(ledgerline: Observe, instance: dg.DagsterInstance) -> None:
    run_id = executed(instance)
    result = ledgerline("trace", run_id, "--least", "0")
    assert result.exit_code == 0, result.output
    steps = re.findall(r"^(\S+ (?:planes|fleet)) ", result.stdout, flags=re.MULTILINE)
    assert result.stdout.startswith("run ")
    assert steps == ["├─ planes", "└─ fleet"]
    assert "─ compute " in result.stdout
    assert re.search(r"\d\.\d s", result.stdout)
    assert "compute" not in ledgerline("trace", run_id, "--least", "1000").stdout


def test_the_trace_of_a_run_that_goes_on_is_printed_as_far_as_it_is(
    ledgerline: Observe, instance: dg.DagsterInstance
) -> None:
    run = begin(instance)
    result = ledgerline("trace", run.run_id)
    assert result.exit_code == 0
    assert "running" in result.stdout


def test_a_trace_is_printed_whether_or_not_traces_are_sent(
    ledgerline: Observe, instance: dg.DagsterInstance, nobody: str
) -> None:
    run_id = executed(instance)
    variables = {"OTEL_SDK_DISABLED": "true", "MLFLOW_TRACKING_URI": nobody}
    assert "fleet" in ledgerline("trace", run_id, **variables).stdout


# Following, as a process of its own


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
    """Started as a script starts something in the background: Ctrl-C is ignored, unless it says otherwise."""
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


def shown(client: MlflowClient, run_id: str) -> bool:
    """Return whether MLflow has the whole trace and the ended run."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return False
    found = client.search_runs([experiment.experiment_id], f"tags.`dagster.run_id` = '{run_id}'")
    traces = client.search_traces(locations=[experiment.experiment_id])
    return [run.info.status for run in found] == ["FINISHED"] and [
        trace.info.state.value for trace in traces
    ] == ["OK"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_are_shown_as_they_happen_until_a_signal_ends_it(
    settings: Settings, instance: dg.DagsterInstance, client: MlflowClient, number: signal.Signals
) -> None:
    with following(settings) as follower:
        run_id = executed(instance)
        wait_until(lambda: shown(client, run_id), "the run is shown to its end")
        for projection in ("traces", "mlflow"):
            # In how many parts depends on when it looked, and a busy target may have been away for a moment.
            line = rf"\d\d:\d\d:\d\d  {projection:<12}1 runs updated, [1-9]\d* items written, [01] followed$"
            wait_until(partial(follower.has_line, line), f"{projection} has said so")
        follower.end(number)
        assert follower.process.returncode == 0, follower.lines
        assert follower.with_text("Traceback") == []
        assert follower.with_text("cannot be exported") == []
    assert "fleet" in traced(client, run_id)
    assert tracked(client) == [run_id]


def test_it_ends_before_it_has_shown_everything(settings: Settings, instance: dg.DagsterInstance) -> None:
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
    assert None in cursors.active.values()  # it had not come to these


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


def test_it_ends_while_a_target_does_not_answer(settings: Settings, instance: dg.DagsterInstance) -> None:
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


def test_it_ends_while_what_it_prints_is_not_read(settings: Settings, instance: dg.DagsterInstance) -> None:
    said = bytearray()
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
                assert process.poll() is None, said
                said.extend(read.read() or b"")
                return b"Following" in said

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
