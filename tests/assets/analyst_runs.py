"""Runs of the analyst's evaluation on tables of two days, with a made-up mind behind a real client."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pandas as pd

from assets.analyst_questions import questions
from pipelines.definitions import build_definitions
from pipelines.executors import executor_for
from resources.environments import Settings
from resources.storage import open_tables
from tests.agent.fake_ollama import Analyst, ChatRequest, FakeOllama, Mind, Reply
from tests.conftest import DAYS

JOB = "evaluate_analyst"


def knows_all() -> Analyst:
    """A mind that asks for each right answer as the questions themselves do."""
    days = {"first": DAYS[0], "last": DAYS[-1]}
    return Analyst(
        {
            question.question.format(**days): question.sql.format(**days) if question.sql else None
            for question in questions()
        }
    )


def text_of(question_id: str) -> str:
    """A question as it is asked."""
    (question,) = [question for question in questions() if question.id == question_id]
    return question.question.format(first=DAYS[0], last=DAYS[-1])


@dataclass
class Stumbling:
    """Answers as another mind, but says something else the first times it is asked some questions.

    Attributes:
        mind: Who knows.
        instead: What is said, by question.
        times: How often.
    """

    mind: Mind
    instead: Mapping[str, Reply]
    times: int = 1
    _said: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: ChatRequest) -> Reply:
        question = request.messages[-1].get("content", "")
        with self._lock:
            self._said[question] += 1
            stumbles = question in self.instead and self._said[question] <= self.times
        return self.instead[question] if stumbles else self.mind(request)


def asked(fake: FakeOllama) -> Counter[str]:
    """How often each question was put, whatever came of it."""
    last = [request.messages[-1] for request in fake.requests]
    return Counter(message["content"] for message in last if message["role"] == "user")


@dataclass(frozen=True)
class Evaluations:
    """Runs of the job, with the state of one test.

    Attributes:
        settings: Where the state is, and who answers.
        instance: Of Dagster.
    """

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def job(self) -> dg.JobDefinition:
        return build_definitions(self.settings, executor_for("in_process", 0, 1)).resolve_job_def(JOB)

    def run(self, *assets: str, **ops: Mapping[str, object]) -> dg.ExecuteInProcessResult:
        """Execute the job, or some of its assets; its errors are in the result."""
        return self.job.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            run_config={"ops": {name: {"config": config} for name, config in ops.items()}},
        )

    def table(self, name: str) -> pd.DataFrame:
        """What is stored of an asset."""
        return open_tables(self.settings.data).read(dg.AssetKey(name))

    def is_stored(self, name: str) -> bool:
        return open_tables(self.settings.data).path_of(dg.AssetKey(name)).exists()

    def materialised(self, name: str) -> dg.AssetMaterialization:
        """What the last materialisation said of itself."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        return event.asset_materialization


@contextmanager
def evaluations(
    folder: Path, tables: Path, tracking: Path, mind: Mind, **variables: str
) -> Iterator[tuple[Evaluations, FakeOllama]]:
    """State of its own in a folder, with these tables, and a language model.

    Args:
        folder: For this alone.
        tables: What is stored already; left as it is.
        tracking: A new MLflow database, which is copied.
        mind: Of the language model.
        variables: More settings.
    """
    import shutil

    home = folder / "home"
    shutil.copytree(tables, home / "data")
    shutil.copyfile(tracking, home / "mlflow.db")
    (folder / "dagster").mkdir()
    with FakeOllama(mind) as fake, dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        settings = Settings.from_environment(
            {"LEDGERLINE_HOME": str(home), "OLLAMA_HOST": fake.url, **variables}
        )
        yield Evaluations(settings, instance), fake
