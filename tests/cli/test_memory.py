"""Tests the commands that list and delete what the analyst remembers."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledgerline.agent.memory import Memory
from ledgerline.agent.vector_store import Entry
from ledgerline.cli.main import app

AT = datetime(2026, 11, 3, 14, 5, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setenv("LEDGERLINE_HOME", str(tmp_path))
    found = Memory(tmp_path / "agent" / "memory")
    found.remember(
        [Entry(f"answer:{name}", "answer", f"Question: {name}?\nAnswer: 1", "trace 1", AT) for name in "abc"]
    )
    return found


def test_entries_are_listed_with_the_keys_to_forget_them_by(memory: Memory) -> None:
    listing = CliRunner().invoke(app, ["memory", "list", "--limit", "2"])

    assert listing.exit_code == 0
    assert "3 entries" in listing.output
    assert listing.output.count("answer:") == 2
    assert "Question: " in listing.output


def test_a_forgotten_entry_is_deleted(memory: Memory) -> None:
    done = CliRunner().invoke(app, ["memory", "forget", "answer:a", "answer:b"])

    assert (done.exit_code, done.output) == (0, "2 of 2 entries deleted.\n")
    assert [entry.key for entry in memory.entries()] == ["answer:c"]


def test_forgetting_an_unknown_entry_is_refused(memory: Memory) -> None:
    done = CliRunner().invoke(app, ["memory", "forget", "answer:a", "answer:z"])

    assert (done.exit_code, done.output) == (1, "1 of 2 entries deleted.\n")


def test_without_a_memory_the_message_names_the_setting(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGERLINE_MEMORY", "off")

    refused = CliRunner().invoke(app, ["memory", "list"])

    assert refused.exit_code == 2
    assert "LEDGERLINE_MEMORY is off" in refused.output
