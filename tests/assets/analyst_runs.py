"""Runs of the analyst's evaluation on tables of two days, with a fake responder behind a real client."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pandas as pd
from dagster import DagsterEventType

from assets.analyst_questions import Question, questions
from ledgerline.dagster.executors import executor_for
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.testing.fake_ollama import Analyst, ChatRequest, FakeOllama, Reply, Responder
from pipelines.definitions import build_definitions
from tests.conftest import DAYS

JOB = "evaluate_analyst"


def text_of(question_id: str) -> str:
    """Return the text of a question."""
    (question,) = [question for question in questions() if question.id == question_id]
    return _of_these_days(question.question)


def answers_all() -> Analyst:
    """Return a responder that queries each right answer as the questions do."""
    return Analyst(
        {
            _of_these_days(question.question): _of_these_days(question.sql) if question.sql else None
            for question in questions()
        },
        tool="query_flights",
    )


def _of_these_days(text: str) -> str:
    return text.format(first=DAYS[0], last=DAYS[-1])


@dataclass
class Stumbling:
    """Responds as another responder, except to the first requests of some questions.

    Attributes:
        responder: The other one.
        instead: The first responses, by question.
        times: How often.
    """

    responder: Responder
    instead: Mapping[str, Reply]
    times: int = 1
    _requests: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: ChatRequest) -> Reply:
        question = request.messages[-1].get("content", "")
        with self._lock:
            self._requests[question] += 1
            stumbles = question in self.instead and self._requests[question] <= self.times
        return self.instead[question] if stumbles else self.responder(request)


def asked(fake: FakeOllama) -> Counter[str]:
    """Return how often each question was sent."""
    last = [request.messages[-1] for request in fake.requests]
    return Counter(message["content"] for message in last if message["role"] == "user")


def evaluation_job(environment: Mapping[str, str], executor: str) -> dg.JobDefinition:
    """Return the job with these variables; each process of a run builds it."""
    settings = Settings.from_environment(environment)
    chosen = executor_for(
        executor, settings.max_concurrent_steps, settings.agent.executions, "pipelines.definitions"
    )
    return build_definitions(settings, chosen).resolve_job_def(JOB)


@dataclass(frozen=True)
class Evaluations:
    """Runs of the job, with the state of one test.

    Attributes:
        environment: Names the folder of the state and the server of the model.
        instance: The Dagster instance.
    """

    environment: Mapping[str, str]
    instance: dg.DagsterInstance

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)

    def run(
        self,
        *assets: str,
        executor: str = "in_process",
        retried: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> dg.JobExecutionResult:
        """Execute the job; its errors are in the result.

        Args:
            assets: What of it; nothing: all.
            executor: Where its steps are executed.
            retried: A run that is executed again from where it failed.
            config: Of its ops.
        """
        arguments = {"environment": dict(self.environment), "executor": executor}
        job = dg.build_reconstructable_job(__name__, "evaluation_job", reconstructable_kwargs=arguments)
        with dg.execute_job(
            job,
            self.instance,
            run_config={"ops": config} if config else None,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            reexecution_options=dg.ReexecutionOptions.from_failure(retried, self.instance)
            if retried is not None
            else None,
        ) as result:
            return result

    def store_questions(self, *ids: str) -> None:
        """Store some questions without their answers, for runs that only answer them."""
        chosen = {question.id: question for question in questions()}
        self.store("analyst_questions", [_row(chosen[key]) for key in ids])

    def store(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Store a table as if its asset had."""
        pd.DataFrame(rows).to_parquet(self._file(name))

    def table(self, name: str) -> pd.DataFrame:
        """Return the stored rows of an asset."""
        return open_tables(self.settings.data).read(dg.AssetKey(name))

    def is_stored(self, name: str) -> bool:
        return self._file(name).exists()

    def _file(self, name: str) -> Path:
        return Path(str(open_tables(self.settings.data).path_of(dg.AssetKey(name))))

    def materialised(self, name: str) -> dg.AssetMaterialization:
        """Return the metadata of the last materialisation."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        return event.asset_materialization

    def data_version(self, name: str) -> str:
        tags = self.materialised(name).tags
        assert tags is not None
        return tags["dagster/data_version"]


def steps_of(result: dg.JobExecutionResult, kind: DagsterEventType) -> list[str]:
    """The keys of the steps that this happened to, in order."""
    return [str(event.step_key) for event in result.all_events if event.event_type is kind]


def error_of(result: dg.JobExecutionResult, step: str) -> str:
    """Return the error of a failed step and its causes, from the event log."""
    (event,) = [event for event in result.all_events if event.is_step_failure and event.step_key == step]
    error = event.step_failure_data.error
    assert error is not None
    return f"{error.message}{error.cause.message if error.cause else ''}"


@contextmanager
def evaluations(
    folder: Path, tables: Path, tracking: Path, responder: Responder, **variables: str
) -> Iterator[tuple[Evaluations, FakeOllama]]:
    """Yield runs with a state folder, these tables, and a language model with this responder.

    Args:
        folder: For this alone.
        tables: What is stored already; left as it is.
        tracking: A new MLflow database; left as it is.
        responder: Of the language model.
        variables: More settings.
    """
    home = folder / "home"
    shutil.copytree(tables, home / "data")
    shutil.copyfile(tracking, home / "mlflow.db")
    (folder / "dagster").mkdir()
    with FakeOllama(responder) as fake, dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        environment = {"LEDGERLINE_HOME": str(home), "OLLAMA_HOST": fake.url, **variables}
        yield Evaluations(environment, instance), fake


def _row(question: Question) -> Mapping[str, object]:
    return {
        "id": question.id,
        "question": text_of(question.id),
        "kind": question.kind.value,
        "expected": None,
        "decimals": question.decimals,
        "sql": None,
    }
