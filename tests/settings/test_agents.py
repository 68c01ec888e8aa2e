"""Tests the settings of agents: defaults, every variable, and values that cannot be used."""

from pathlib import Path

import pytest

from ledgerline.settings.agents import AgentSettings
from ledgerline.settings.declaration import SettingsError, settings_of

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
HOME = "/srv/state"

DEFAULTS = {
    "provider": "ollama",
    "address": "http://127.0.0.1:11434",
    "model": "qwen3:8b",
    "api_key": None,
    "temperature": 0.0,
    "seed": 0,
    "context_tokens": 16_384,
    "output_tokens": 2_048,
    "think": None,
    "embedding_model": None,
    "search_url": None,
    "memory": "/srv/state/agent/memory",
    "prompt": None,
    "turns": 8,
    "tool_calls": 16,
    "tokens": 50_000,
    "seconds": 180,
    "executions": 4,
    "captures": False,
}


def settings(**variables: str) -> AgentSettings:
    return AgentSettings.from_environment({"LEDGERLINE_HOME": HOME, **variables})


def values(of: AgentSettings) -> dict[str, object]:
    return {name: getattr(of, name) for name in DEFAULTS}


def test_without_any_variable_it_is_a_local_ollama() -> None:
    assert values(settings()) == DEFAULTS


def test_an_empty_variable_counts_as_not_set() -> None:
    assert values(settings(**dict.fromkeys(OVERRIDES, ""), OPENAI_BASE_URL="")) == DEFAULTS


OVERRIDES = {
    "OLLAMA_HOST": ("gpu.example", "address", "gpu.example"),
    "LEDGERLINE_LLM_MODEL": ("llama3.2:3b", "model", "llama3.2:3b"),
    "OPENAI_API_KEY": ("s3cret", "api_key", "s3cret"),
    "LEDGERLINE_LLM_TEMPERATURE": ("0.7", "temperature", 0.7),
    "LEDGERLINE_LLM_SEED": ("7", "seed", 7),
    "LEDGERLINE_LLM_CONTEXT_TOKENS": ("32768", "context_tokens", 32_768),
    "LEDGERLINE_LLM_OUTPUT_TOKENS": ("512", "output_tokens", 512),
    "LEDGERLINE_LLM_THINK": ("off", "think", "off"),
    "LEDGERLINE_EMBEDDING_MODEL": ("nomic-embed-text", "embedding_model", "nomic-embed-text"),
    "LEDGERLINE_SEARCH_URL": ("http://search.example", "search_url", "http://search.example"),
    "LEDGERLINE_MEMORY": ("/srv/memory", "memory", "/srv/memory"),
    "LEDGERLINE_PROMPT": ("prompts:/analyst/3", "prompt", "prompts:/analyst/3"),
    "LEDGERLINE_AGENT_TURNS": ("3", "turns", 3),
    "LEDGERLINE_AGENT_TOOL_CALLS": ("5", "tool_calls", 5),
    "LEDGERLINE_AGENT_TOKENS": ("9000", "tokens", 9_000),
    "LEDGERLINE_AGENT_SECONDS": ("60", "seconds", 60),
    "LEDGERLINE_AGENT_EXECUTIONS": ("2", "executions", 2),
    CAPTURE_VARIABLE: ("true", "captures", True),
}


def test_every_setting_has_a_variable() -> None:
    declared = {setting.name for setting in settings_of(AgentSettings)}
    assert {*OVERRIDES, "LEDGERLINE_LLM_PROVIDER", "OPENAI_BASE_URL", "LEDGERLINE_HOME"} == declared


@pytest.mark.parametrize("variable", OVERRIDES)
def test_each_variable_changes_its_setting_and_nothing_else(variable: str) -> None:
    value, field, expected = OVERRIDES[variable]
    assert values(settings(**{variable: value})) == {**DEFAULTS, field: expected}


def test_a_server_with_openais_protocol_has_a_separate_address() -> None:
    of_both = {"OLLAMA_HOST": "gpu.example", "OPENAI_BASE_URL": "https://vllm.example/v1"}
    assert settings(**of_both).address == "gpu.example"
    assert settings(**of_both, LEDGERLINE_LLM_PROVIDER="openai").address == "https://vllm.example/v1"
    assert settings(LEDGERLINE_LLM_PROVIDER="openai").address == "http://127.0.0.1:8000/v1"


def test_memory_can_be_switched_off_and_its_folder_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings(LEDGERLINE_MEMORY="off").memory is None
    assert settings(LEDGERLINE_MEMORY="memory").memory == str(tmp_path / "memory")


@pytest.mark.parametrize(
    ("value", "captures"),
    [
        ("true", True),
        ("True", True),
        (" SPAN_ONLY ", True),
        ("span_and_event", True),
        ("event_only", False),
        ("no_content", False),
        ("false", False),
        ("yes, please", False),
    ],
)
def test_messages_are_in_spans_only_if_opentelemetrys_variable_is_set(value: str, captures: bool) -> None:
    assert settings(**{CAPTURE_VARIABLE: value}).captures is captures


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LEDGERLINE_LLM_PROVIDER", "gemini", "set it to one of: ollama, openai (default ollama)."),
        ("LEDGERLINE_LLM_THINK", "maybe", "set it to one of: off, on, low, medium, high."),
        ("LEDGERLINE_LLM_TEMPERATURE", "hot", "set it to a number from 0 to 2 (default 0)."),
        ("LEDGERLINE_LLM_TEMPERATURE", "2.5", "set it to a number from 0 to 2 (default 0)."),
        ("LEDGERLINE_LLM_TEMPERATURE", "nan", "set it to a number from 0 to 2 (default 0)."),
        ("LEDGERLINE_LLM_SEED", "-1", "set it to a whole number from 0 on (default 0)."),
        ("LEDGERLINE_LLM_CONTEXT_TOKENS", "16k", "set it to a whole number from 1 on (default 16384)."),
        ("LEDGERLINE_AGENT_SECONDS", "1.5", "set it to a whole number from 1 on (default 180)."),
    ],
)
def test_a_wrong_value_is_named_with_the_allowed_ones(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is '{value}'; ") as error:
        settings(**{name: value})
    assert str(error.value).endswith(expected)


@pytest.mark.parametrize(
    "name",
    [name for name in OVERRIDES if name.endswith("_TOKENS") or name.startswith("LEDGERLINE_AGENT_")],
)
def test_a_limit_of_zero_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is '0'; set it to a whole number from 1 on"):
        settings(**{name: "0"})


def test_a_wrong_address_of_a_search_is_refused_and_not_printed() -> None:
    with pytest.raises(
        SettingsError, match=r"^LEDGERLINE_SEARCH_URL cannot be used; set it to an address"
    ) as error:
        settings(LEDGERLINE_SEARCH_URL="s3cret")
    assert "s3cret" not in str(error.value)


def test_secrets_are_not_printed() -> None:
    text = repr(
        settings(
            OLLAMA_HOST="http://somebody:s3cret@llm.example",
            OPENAI_API_KEY="s3cret",
            LEDGERLINE_SEARCH_URL="http://somebody:s3cret@search.example",
        )
    )
    assert "s3cret" not in text
    assert "qwen3:8b" in text
