"""What the environment says of agents: their language model, search, memory and budget. It opens nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ledgerline.agent.thinking import Thinking
from ledgerline.settings import variables

OLLAMA, OPENAI = "ollama", "openai"
DEFAULT_MODEL = "qwen3:8b"
DEFAULT_ADDRESSES = {OLLAMA: "http://127.0.0.1:11434", OPENAI: "http://127.0.0.1:8000/v1"}
ADDRESS_VARIABLES = {OLLAMA: "OLLAMA_HOST", OPENAI: "OPENAI_BASE_URL"}

# OpenTelemetry's own variable, and what its instrumentations take for "in spans".
CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURED = ("true", "span_only", "span_and_event")


@dataclass(frozen=True)
class AgentSettings:
    """The settings of agents.

    Attributes:
        provider: "ollama", or "openai" for every server that speaks OpenAI's protocol.
        address: URL of the language model's server; may hold a password.
        model: Which language model.
        api_key: For the server, if it wants one.
        temperature: 0 lets the model say what it finds most likely.
        seed: The same one, with temperature 0, gives the same answers, as far as the server can.
        context_tokens: What the model takes in, with what it says.
        output_tokens: The most it says at once, with what it thinks before.
        embedding_model: Of the same server, for memory; None: a local one that needs no download.
        search_url: URL of a SearXNG; None: the agent cannot search the web.
        memory: Folder; None: it remembers nothing.
        prompt: Address of a prompt in MLflow's registry; None: the project's own.
        turns, tool_calls, tokens, seconds: The budget of one execution.
        executions: How many of a run are under way at the same time.
        captures: Whether what is said is recorded in traces.
        think: Whether, or how much, the model thinks before it answers; None: as it does by itself.
    """

    provider: str
    address: str = field(repr=False)
    model: str
    api_key: str | None = field(repr=False)
    temperature: float
    seed: int
    context_tokens: int
    output_tokens: int
    embedding_model: str | None
    search_url: str | None = field(repr=False)
    memory: str | None
    prompt: str | None
    turns: int
    tool_calls: int
    tokens: int
    seconds: int
    executions: int
    captures: bool
    think: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], home: Path) -> Self:
        """Read the settings.

        Raises:
            ValueError: A variable has a value that cannot be used; the message names it.
        """
        provider = variables.choice(environment, "LEDGERLINE_LLM_PROVIDER", (OLLAMA, OPENAI))
        memory = environment.get("LEDGERLINE_MEMORY") or str(home / "agent" / "memory")
        return cls(
            provider=provider,
            address=environment.get(ADDRESS_VARIABLES[provider]) or DEFAULT_ADDRESSES[provider],
            model=environment.get("LEDGERLINE_LLM_MODEL") or DEFAULT_MODEL,
            api_key=environment.get("OPENAI_API_KEY") or None,
            temperature=variables.number(environment, "LEDGERLINE_LLM_TEMPERATURE", 0, 2),
            seed=variables.whole_number(environment, "LEDGERLINE_LLM_SEED", 0),
            context_tokens=_above_zero(environment, "LEDGERLINE_LLM_CONTEXT_TOKENS", 16_384),
            output_tokens=_above_zero(environment, "LEDGERLINE_LLM_OUTPUT_TOKENS", 2_048),
            embedding_model=environment.get("LEDGERLINE_EMBEDDING_MODEL") or None,
            search_url=variables.address(environment, "LEDGERLINE_SEARCH_URL"),
            memory=None if memory == variables.OFF else variables.place(memory),
            prompt=environment.get("LEDGERLINE_PROMPT") or None,
            turns=_above_zero(environment, "LEDGERLINE_AGENT_TURNS", 8),
            tool_calls=_above_zero(environment, "LEDGERLINE_AGENT_TOOL_CALLS", 16),
            tokens=_above_zero(environment, "LEDGERLINE_AGENT_TOKENS", 50_000),
            seconds=_above_zero(environment, "LEDGERLINE_AGENT_SECONDS", 180),
            executions=_above_zero(environment, "LEDGERLINE_AGENT_EXECUTIONS", 4),
            captures=environment.get(CAPTURE_VARIABLE, "").strip().lower() in CAPTURED,
            think=_think(environment),
        )


def _think(environment: Mapping[str, str]) -> str | None:
    name = "LEDGERLINE_LLM_THINK"
    if not environment.get(name):
        return None
    return variables.choice(environment, name, tuple(Thinking))


def _above_zero(environment: Mapping[str, str], name: str, default: int) -> int:
    found = variables.whole_number(environment, name, default)
    if found == 0:
        raise ValueError(f"{name} is 0; set it to a whole number above that (default {default}).")
    return found
