"""Tests the analyst's evaluation as a whole: the job, its MLflow run, and its trace."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from rich.console import Console

from assets.analyst_questions import Kind, questions
from assets.analyst_scores import TABLE_FILE
from ledgerline.agent import conventions
from ledgerline.cli import observing
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import COMPUTE
from ledgerline.mlflow_store import store
from ledgerline.testing.fake_ollama import MODEL, FakeOllama
from tests.assets.analyst_runs import Evaluations, answers_all, asked, evaluations, steps_of
from tests.project import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run, Trace

PRICES = {"per_million_input_tokens": 2.0, "per_million_output_tokens": 8.0}


@dataclass(frozen=True)
class Evaluated:
    """The results of one run of the job, which the observer has exported to MLflow."""

    runs: Evaluations
    fake: FakeOllama
    result: dg.JobExecutionResult
    client: "MlflowClient"

    @property
    def mlflow_run(self) -> "Run":
        """The evaluation in MLflow."""
        (run,) = self._runs("dagster.step_key = 'analyst_scores'")
        return run

    @property
    def job_run(self) -> "Run":
        """The run of the whole job in MLflow."""
        found = self._runs(f"dagster.run_id = '{self.result.run_id}'")
        (run,) = [run for run in found if run.info.run_id != self.mlflow_run.info.run_id]
        return run

    def _runs(self, condition: str) -> "list[Run]":
        name, _, value = condition.partition(" = ")
        experiment_id = store.experiment_id(self.client, EXPERIMENT, None)
        return list(self.client.search_runs([experiment_id], f"tags.`{name}` = {value}"))

    @property
    def trace(self) -> "Trace":
        return self.client.get_trace(f"tr-{ids.trace_id(self.result.run_id):032x}")


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Evaluated]:
    tables, tracking = (request.getfixturevalue(name) for name in ("two_days", "mlflow_template"))
    with evaluations(tmp_path_factory.mktemp("evaluated"), tables, tracking, answers_all()) as (runs, fake):
        result = runs.run(config={"analyst_scores": {"config": PRICES}})
        assert result.success
        console = Console(file=io.StringIO())
        observers = observing.observers_of(runs.settings, None, {})
        exported = observing.export_runs(console, runs.instance, observers, [result.run_id])
        assert exported
        yield Evaluated(runs, fake, result, store.connect(runs.settings.tracking_uri))


def test_every_question_is_answered_once_and_right(evaluated: Evaluated) -> None:
    expected = evaluated.runs.table("analyst_questions")
    assert asked(evaluated.fake) == dict.fromkeys(expected["question"], 1)
    scores = evaluated.runs.table("analyst_scores")
    assert list(scores["id"]) == [question.id for question in questions()]
    assert scores["is_right"].all()
    assert scores["is_grounded"].all()
    assert list(scores["refused"]) == list(scores["kind"] == Kind.UNANSWERABLE.value)


def test_the_memory_is_not_used_during_an_evaluation(evaluated: Evaluated) -> None:
    settings = evaluated.runs.settings.agent
    assert settings.memory is not None
    assert not (evaluated.runs.settings.home / "agent").exists()
    assert evaluated.fake.embedded == []


def test_each_table_names_the_versions_of_its_inputs(evaluated: Evaluated) -> None:
    runs = evaluated.runs
    versions = {name: runs.data_version(name) for name in ("analyst_questions", "analyst_answers")}
    made_from = {
        name: {
            key.removeprefix("dagster/input_data_version/"): value
            for key, value in (runs.materialised(name).tags or {}).items()
            if key.startswith("dagster/input_data_version/")
        }
        for name in ("analyst_answers", "analyst_scores")
    }
    assert made_from["analyst_answers"] == {"analyst_questions": versions["analyst_questions"]}
    assert made_from["analyst_scores"] == versions
    assert (
        runs.materialised("analyst_scores").metadata["questions_version"].value
        == (versions["analyst_questions"])
    )


def test_a_materialisation_has_the_scores(evaluated: Evaluated) -> None:
    metadata = {
        name: one.value for name, one in evaluated.runs.materialised("analyst_scores").metadata.items()
    }
    turns = evaluated.runs.table("analyst_answers")["turns"].sum()
    assert metadata["accuracy"] == metadata["accuracy_of_facts"] == metadata["grounded"] == 1.0
    assert metadata["refused_when_it_must"] == 1.0
    assert metadata["refused_needlessly"] == 0.0
    assert metadata["tokens"] == turns * 36
    assert metadata["cost"] == pytest.approx(turns * (26 * 2.0 + 10 * 8.0) / 1_000_000)
    assert metadata["model"] == MODEL
    assert metadata["mlflow_run"] == evaluated.mlflow_run.info.run_id


def test_a_first_evaluation_is_compared_with_nothing(evaluated: Evaluated) -> None:
    checks = evaluated.result.get_asset_check_evaluations()
    assert {check.check_name for check in checks} == {
        "as_right_as_before",
        "as_grounded_as_before",
        "as_cheap_as_before",
    }
    assert {check.passed for check in checks} == {True}
    assert {check.description for check in checks} == {"Not compared: there are no previous scores."}


def test_the_evaluation_is_a_run_in_mlflow_under_that_of_the_job(evaluated: Evaluated) -> None:
    run = evaluated.mlflow_run
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"analyst {MODEL}, prompt 1"
    assert run.data.tags["dagster.run_id"] == evaluated.result.run_id
    assert run.data.tags["dagster.job_name"] == "evaluate_analyst"
    assert run.data.tags["mlflow.parentRunId"] == evaluated.job_run.info.run_id
    params = run.data.params
    assert params["model"] == MODEL
    assert params["prompt"] == "prompts:/analyst/1"
    assert params["questions"] == str(len(questions()))
    assert params["questions_version"] == evaluated.runs.data_version("analyst_questions")
    metadata = evaluated.runs.materialised("analyst_scores").metadata
    assert set(run.data.metrics) == {
        "accuracy",
        "accuracy_of_facts",
        "refused_when_it_must",
        "refused_needlessly",
        "grounded",
        "tokens",
        "seconds",
        "cost",
    }
    for name, value in run.data.metrics.items():
        assert value == pytest.approx(metadata[name].value)


def test_the_prompt_that_was_used_is_in_mlflows_registry(evaluated: Evaluated) -> None:
    from assets.analyst import PROMPT

    registered = evaluated.client.get_prompt_version("analyst", "1")
    assert registered is not None
    assert registered.template == PROMPT


def test_mlflow_lists_the_table_and_gives_it_back(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow searches runs with tables at this address, whatever address its client has.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", evaluated.runs.settings.tracking_uri)
    run = evaluated.mlflow_run
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": TABLE_FILE, "type": "table"}]
    table = evaluated.client.load_table(run.info.experiment_id, TABLE_FILE, [run.info.run_id])
    scores = evaluated.runs.table("analyst_scores")
    answers = evaluated.runs.table("analyst_answers")
    assert list(table["id"]) == list(scores["id"])
    assert list(table["answer"]) == list(answers["answer"])
    assert table["is_right"].all()
    assert list(table["input_tokens"]) == list(answers["input_tokens"])
    assert list(table["span_id"]) == list(answers["span_id"])
    assert list(table.columns[:4]) == ["id", "question", "answer", "expected"]


def spans_in_event_log(evaluated: Evaluated) -> Mapping[str, list[Mapping[str, Any]]]:
    """Spans that each step has recorded itself."""
    history = read_history(evaluated.runs.instance, evaluated.result.run_id)
    assert history is not None
    found: dict[str, list[Mapping[str, Any]]] = {}
    for recorded in history.recorded_spans:
        found.setdefault(recorded.step, []).extend(recorded.encoded)
    return found


def test_an_execution_is_traced_below_the_computation_of_its_step(evaluated: Evaluated) -> None:
    by_step = spans_in_event_log(evaluated)
    answering = [
        step
        for step in steps_of(evaluated.result, DagsterEventType.STEP_SUCCESS)
        if step.startswith("analyst_answers.answer[")
    ]
    assert set(by_step) >= set(answering)
    answers = {row["id"]: row for row in evaluated.runs.table("analyst_answers").to_dict("records")}
    for step in answering:
        spans = by_step[step]
        (execution,) = [span for span in spans if span["name"] == "invoke_agent analyst"]
        compute = ids.phase_span_id(evaluated.result.run_id, step, 1, COMPUTE)
        assert execution["parent"] == f"{compute:016x}"
        answer = answers[step.partition("[")[2].removesuffix("]")]
        assert execution["id"] == answer["span_id"]
        assert answer["trace_id"] == f"{ids.trace_id(evaluated.result.run_id):032x}"
        assert execution["attributes"][conventions.INPUT_TOKENS] == answer["input_tokens"]
        assert execution["attributes"][conventions.PROMPT_VERSION] == 1
        below = [span["name"] for span in spans if span["parent"] == execution["id"]]
        chats = [name for name in below if name == f"chat {MODEL}"]
        assert len(chats) == answer["turns"]
        assert len(below) - len(chats) == len([tool for tool in answer["tools"].split(",") if tool])


def test_messages_are_in_no_span(evaluated: Evaluated) -> None:
    recorded = json.dumps(spans_in_event_log(evaluated))
    assert "How many flights" not in recorded
    assert "SELECT" not in recorded


def test_mlflow_counts_each_token_of_the_run_once(evaluated: Evaluated) -> None:
    answers = evaluated.runs.table("analyst_answers")
    usage = json.loads(evaluated.trace.info.trace_metadata["mlflow.trace.tokenUsage"])
    taken, given = int(answers["input_tokens"].sum()), int(answers["output_tokens"].sum())
    assert (usage["input_tokens"], usage["output_tokens"]) == (taken, given)
    assert usage["total_tokens"] == taken + given


def test_mlflow_has_agents_models_and_tools_as_spans_of_their_types(evaluated: Evaluated) -> None:
    kinds = {span.name: span.span_type for span in evaluated.trace.data.spans}
    assert kinds["invoke_agent analyst"] == "AGENT"
    assert kinds[f"chat {MODEL}"] in ("CHAT_MODEL", "LLM")
    assert kinds["execute_tool query_flights"] == "TOOL"
