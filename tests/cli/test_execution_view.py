"""Tests the output of an execution in a terminal and elsewhere."""

import io
from datetime import UTC, datetime

from rich.console import Console

from ledgerline.agent.execution import Execution, Limit, ToolUse
from ledgerline.agent.memory import Recalled
from ledgerline.agent.messages import ToolCall, Usage
from ledgerline.agent.vector_store import Entry
from ledgerline.cli.execution_view import MAX_LINES, ExecutionView, print_execution, printable

CALL = ToolCall("1", "query_flights", {"sql": "SELECT count(*)\n  FROM flights"})
EXECUTION = Execution(
    question="How many?",
    answer="There were 7.\nAnswer: 7",
    finding="7",
    stopped_by=None,
    turns=2,
    tools=(ToolUse(CALL, "n\n7\n", False, 0.1),),
    recalled=(),
    usage=Usage(1_234, 56),
    seconds=1.26,
    model="qwen3:8b",
    prompt="analyst",
    prompt_version=3,
    trace_id=None,
    span_id=None,
)


def seen(*happened: str, terminal: bool = False) -> str:
    """Return what such an execution leaves on the screen."""
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=terminal, color_system=None)
    with ExecutionView(console) as view:
        view.turn_begins(1)
        view.tool_called(CALL)
        for answer in happened:
            view.tool_returned(ToolUse(CALL, answer, answer.startswith("Error"), 0.1))
        view.text_received("There were ")
        view.text_received("7.")
    return output.getvalue()


def printed(execution: Execution, page: str | None = None) -> str:
    output = io.StringIO()
    print_execution(Console(file=output, width=80, color_system=None), execution, page)
    return output.getvalue()


def test_a_tool_call_is_one_line_and_its_answer_some() -> None:
    rows = "\n".join(str(number) for number in range(MAX_LINES + 3))
    assert seen(rows).splitlines() == [
        "query_flights  SELECT count(*) FROM flights",
        *(f"    {number}" for number in range(MAX_LINES)),
        "    … 3 more lines",
    ]


def test_streamed_text_is_printed_on_terminals_only() -> None:
    assert "There were" not in seen("n\n7\n")
    assert "query_flights  SELECT count(*) FROM flights" in seen("n\n7\n", terminal=True)


def test_a_long_line_is_cut() -> None:
    (_, line) = seen("x" * 500).splitlines()
    assert line.strip() == "x" * 110 + "…"


def test_several_and_unreadable_arguments_are_printed_unchanged() -> None:
    output = io.StringIO()
    view = ExecutionView(Console(file=output, width=200))
    view.tool_called(ToolCall("1", "web_search", {"query": "strike", "results": 3}))
    view.tool_called(ToolCall("2", "web_search", "{not json"))
    assert output.getvalue().splitlines() == [
        'web_search  {"query": "strike", "results": 3}',
        "web_search  {not json",
    ]


def test_recalled_entries_are_printed_with_their_similarity() -> None:
    entry = Entry("answer:1", "answer", "Question: How many?\nAnswer: 7", "trace 1", datetime.now(UTC))
    output = io.StringIO()
    view = ExecutionView(Console(file=output, width=200))
    view.recalled([Recalled(entry, 0.876, 0.5)])
    view.recalled([])
    view.recall_failed("its folder is gone")
    text = output.getvalue()
    assert text.count("relevant entries") == 1
    assert "0.88  Question: How many?" in text
    assert "memory  not used: its folder is gone" in text


def test_markup_and_control_characters_are_printed_as_text() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J[bold]7[/bold][/nothing]"
    for text in (seen(hostile), seen(f"Error: {hostile}"), printed_answer(hostile)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[bold]7[/bold][/nothing]" in text
    assert printable("1\t2\n3 é €") == "1\t2\n3 é €"


def printed_answer(answer: str) -> str:
    from dataclasses import replace

    return printed(replace(EXECUTION, answer=answer))


def test_the_answer_is_printed_with_tokens_and_seconds() -> None:
    text = printed(EXECUTION, "http://mlflow.example/" + "x" * 100)
    assert "There were 7.\nAnswer: 7" in text
    assert "1.3 s, 2 turns, 1 tool calls, 1,234 tokens in, 56 out, qwen3:8b, prompt analyst version 3" in text
    assert f"trace: http://mlflow.example/{'x' * 100}\n" in text  # in one piece, to be clicked on


def test_an_execution_without_an_answer_has_a_reason() -> None:
    from dataclasses import replace

    text = printed(replace(EXECUTION, answer="", stopped_by=Limit.SECONDS, prompt_version=None, tools=()))
    assert "There is no answer." in text
    assert "The limit of seconds ended the execution (LEDGERLINE_AGENT_*)" in text
    assert "version" not in text
    assert "trace: " not in text


def test_nothing_is_drawn_for_programs() -> None:
    output = io.StringIO()
    with ExecutionView(Console(file=output, quiet=True, force_terminal=True)) as view:
        view.turn_begins(1)
        view.tool_called(CALL)
        view.text_received("There were 7.")
    assert output.getvalue() == ""
