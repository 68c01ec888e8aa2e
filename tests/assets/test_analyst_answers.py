"""Tests the step of each question: retries, permanent failures, and re-executions."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dagster import DagsterEventType

from ledgerline.testing.fake_ollama import ChatRequest, FakeOllama, Reply, Responder
from tests.assets.analyst_runs import (
    Evaluations,
    Stumbling,
    answers_all,
    asked,
    error_of,
    evaluations,
    steps_of,
    text_of,
)

ASSET = "analyst_answers"
ASKED = ("flights", "carriers", "pilot")
Open = Callable[..., tuple[Evaluations, FakeOllama]]

TRIED = DagsterEventType.STEP_UP_FOR_RETRY

CRASH = Reply(pieces=("This is ",), error="an error was encountered while running the model")
BROKEN = Reply(pieces=("This is what ", "the flights say"), breaks_after=1)
REFUSAL = Reply(status=403, error="forbidden")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def open_with(stack: ExitStack, tmp_path: Path, two_days: Path, mlflow_template: Path) -> Open:
    def opened(responder: Responder, **variables: str) -> tuple[Evaluations, FakeOllama]:
        made = stack.enter_context(evaluations(tmp_path, two_days, mlflow_template, responder, **variables))
        made[0].store_questions(*ASKED)
        return made

    return opened


def step(question: str) -> str:
    return f"{ASSET}.answer[{question}]"


def times(fake: FakeOllama) -> dict[str, int]:
    counted = asked(fake)
    return {question: counted[text_of(question)] for question in ASKED}


def test_each_question_is_answered_once_in_a_separate_step(open_with: Open) -> None:
    runs, fake = open_with(answers_all())
    result = runs.run(ASSET)
    assert result.success
    assert set(steps_of(result, DagsterEventType.STEP_SUCCESS)) == {
        f"{ASSET}.ask_each",
        *map(step, ASKED),
        f"{ASSET}.gather_answers",
    }
    assert times(fake) == dict.fromkeys(ASKED, 1)
    answers = runs.table(ASSET).set_index("id")
    assert list(answers.index) == list(ASKED)
    assert answers["stated"].to_dict() == {"flights": "1614", "carriers": "15", "pilot": "unknown"}
    (call,) = json.loads(str(answers.loc["flights", "calls"]))
    assert call["tool"] == "query_flights"
    assert call["arguments"] == {"sql": "SELECT count(*) FROM flights"}
    assert "1614" in call["answer"]
    assert list(answers["tools"]) == ["query_flights", "query_flights", ""]
    assert list(answers["turns"]) == [2, 2, 1]
    assert (answers["input_tokens"] == 26 * answers["turns"]).all()
    assert (answers["output_tokens"] == 10 * answers["turns"]).all()
    assert answers["stopped_by"].isna().all()
    assert set(answers["prompt_version"]) == {1}


@pytest.mark.parametrize("fault", [CRASH, BROKEN], ids=["crash", "broken stream"])
def test_a_question_that_fails_is_tried_again_alone(open_with: Open, fault: Reply) -> None:
    runs, fake = open_with(Stumbling(answers_all(), {text_of("carriers"): fault}))
    result = runs.run(ASSET)
    assert result.success
    assert steps_of(result, TRIED) == [step("carriers")]
    assert times(fake) == {"flights": 1, "carriers": 2, "pilot": 1}
    assert runs.table(ASSET).set_index("id").loc["carriers", "stated"] == "15"


def test_only_a_question_that_failed_is_answered_again(open_with: Open) -> None:
    runs, fake = open_with(Stumbling(answers_all(), {text_of("carriers"): CRASH}, times=3))
    failed = runs.run(ASSET)
    assert not failed.success
    assert steps_of(failed, DagsterEventType.STEP_FAILURE) == [step("carriers")]
    assert steps_of(failed, TRIED) == [step("carriers")] * 2
    assert f"{ASSET}.gather_answers" not in steps_of(failed, DagsterEventType.STEP_START)
    assert times(fake) == {"flights": 1, "carriers": 3, "pilot": 1}
    assert not runs.is_stored(ASSET)

    again = runs.run(ASSET, retried=failed.run_id)
    assert again.success
    assert steps_of(again, DagsterEventType.STEP_START) == [step("carriers"), f"{ASSET}.gather_answers"]
    assert times(fake) == {"flights": 1, "carriers": 4, "pilot": 1}
    answers = runs.table(ASSET).set_index("id")
    assert answers["stated"].to_dict() == {"flights": "1614", "carriers": "15", "pilot": "unknown"}
    # Each answer is in the trace of its run.
    assert answers["trace_id"].nunique() == 2


def test_the_old_table_stays_until_every_question_is_answered(open_with: Open) -> None:
    responder = Stumbling(answers_all(), {}, times=3)
    runs, _ = open_with(responder)
    runs.run(ASSET)
    before = runs.table(ASSET)
    responder.instead = {text_of("pilot"): REFUSAL}
    responder.times = 99
    assert not runs.run(ASSET).success
    assert runs.table(ASSET).equals(before)


def test_a_permanent_failure_is_not_retried(open_with: Open) -> None:
    runs, fake = open_with(Stumbling(answers_all(), {text_of("pilot"): REFUSAL}))
    result = runs.run(ASSET)
    assert steps_of(result, TRIED) == []
    assert steps_of(result, DagsterEventType.STEP_FAILURE) == [step("pilot")]
    assert "does not accept the credentials" in error_of(result, step("pilot"))
    assert times(fake) == dict.fromkeys(ASKED, 1)


def test_a_reached_limit_is_recorded_as_an_answer(open_with: Open) -> None:
    runs, _ = open_with(answers_all(), LEDGERLINE_AGENT_TURNS="1")
    result = runs.run(ASSET)
    assert result.success
    answers = runs.table(ASSET).set_index("id")
    assert answers["stopped_by"].to_dict() == {"flights": "turns", "carriers": "turns", "pilot": None}
    assert answers["outcome"].to_dict() == {"flights": "stopped", "carriers": "stopped", "pilot": "answered"}
    assert answers["stated"].to_dict() == {"flights": None, "carriers": None, "pilot": "unknown"}
    assert runs.materialised(ASSET).metadata["stopped by a limit"].value == 2


@pytest.mark.parametrize(
    ("variables", "problem", "remedy"),
    [
        ({"OLLAMA_HOST": "http://127.0.0.1:9"}, "127.0.0.1:9", "ollama serve"),
        (
            {"OLLAMA_HOST": "http://127.0.0.1:99999"},
            "99999' is not the address of a server",
            "Set OLLAMA_HOST",
        ),
        ({"LEDGERLINE_LLM_MODEL": "nobody:1b"}, "nobody:1b", "ollama pull nobody:1b"),
        ({"LEDGERLINE_LLM_MODEL": "nomic-embed-text"}, "cannot call tools", "can call tools"),
    ],
    ids=["nobody listens", "no address", "no such model", "no tools"],
)
def test_without_a_language_model_it_fails_at_once_with_a_remedy(
    open_with: Open,
    variables: dict[str, str],
    problem: str,
    remedy: str,
) -> None:
    runs, fake = open_with(answers_all(), **variables)
    result = runs.run(ASSET)
    assert steps_of(result, DagsterEventType.STEP_FAILURE) == [f"{ASSET}.ask_each"]
    assert steps_of(result, TRIED) == []
    message = error_of(result, f"{ASSET}.ask_each")
    assert problem in message
    assert remedy in message
    assert fake.requests == []


def test_a_prompt_of_the_registry_replaces_that_of_the_project(open_with: Open) -> None:
    from mlflow import MlflowClient

    runs, fake = open_with(answers_all(), LEDGERLINE_PROMPT="prompts:/terse@production")
    client = MlflowClient(runs.settings.tracking_uri)
    client.register_prompt("terse", "Be terse. End with Answer: and the number.")
    client.set_prompt_alias("terse", "production", 1)
    assert runs.run(ASSET).success
    assert {request.messages[0]["content"] for request in fake.requests} == {
        "Be terse. End with Answer: and the number."
    }
    assert set(runs.table(ASSET)["prompt"]) == {"terse"}


def test_a_missing_prompt_is_named_before_any_request(open_with: Open) -> None:
    runs, fake = open_with(answers_all(), LEDGERLINE_PROMPT="prompts:/nobody/7")
    result = runs.run(ASSET)
    assert "no prompts:/nobody/7" in error_of(result, f"{ASSET}.ask_each")
    assert "LEDGERLINE_PROMPT" in error_of(result, f"{ASSET}.ask_each")
    assert steps_of(result, TRIED) == []
    assert fake.requests == []


class AtOnce:
    """Counts the concurrent conversations; none ends before a given number has begun."""

    def __init__(self, responder: Responder, together: int) -> None:
        self.responder = responder
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(together)

    def __call__(self, request: ChatRequest) -> Reply:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self._together.wait(60)
            return self.responder(request)
        finally:
            with self._lock:
                self._now -= 1


def test_processes_send_at_most_the_configured_number_of_requests_at_once(open_with: Open) -> None:
    responder = AtOnce(answers_all(), together=2)
    runs, fake = open_with(responder, LEDGERLINE_MAX_CONCURRENT_STEPS="4", LEDGERLINE_AGENT_EXECUTIONS="2")
    runs.store_questions("flights", "carriers", "days", "cancelled")
    result = runs.run(ASSET, executor="multiprocess")
    assert result.success
    assert responder.most == 2
    assert len(fake.requests) == 8
    assert list(runs.table(ASSET)["stated"]) == ["1614", "15", "2", "865"]
