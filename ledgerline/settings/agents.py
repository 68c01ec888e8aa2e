"""Declares the variables of agents: their language model, web search, memory and budget."""

from typing import Annotated, Literal

from pydantic import Field

from ledgerline.settings.declaration import OFF, Address, PlaceOrOff, Whole, setting
from ledgerline.settings.shared import HomeVariables

OLLAMA, OPENAI = "ollama", "openai"
ADDRESS_VARIABLES = {OLLAMA: "OLLAMA_HOST", OPENAI: "OPENAI_BASE_URL"}

# The values of OpenTelemetry's variable with which OpenTelemetry's instrumentations record messages in spans.
CAPTURED = ("true", "span_only", "span_and_event")

Positive = Annotated[Whole, Field(ge=1)]


class AgentSettings(HomeVariables):
    """Agents.

    Example:
        >>> settings = AgentSettings.from_environment({"LEDGERLINE_LLM_PROVIDER": "openai"})
        >>> settings.address, settings.turns
        ('http://127.0.0.1:8000/v1', 8)
    """

    provider: Literal["ollama", "openai"] = setting(
        "LEDGERLINE_LLM_PROVIDER",
        "Provider of the language model: ollama, or openai for every server with OpenAI's protocol (vLLM, "
        "llama.cpp).",
        OLLAMA,
    )
    ollama_host: str = setting(
        "OLLAMA_HOST",
        "URL of the Ollama server. It may hold a user and a password.",
        "http://127.0.0.1:11434",
        hides="password",
    )
    openai_base_url: str = setting(
        "OPENAI_BASE_URL",
        "URL of the server with OpenAI's protocol. It may hold a user and a password.",
        "http://127.0.0.1:8000/v1",
        hides="password",
    )
    api_key: str | None = setting(
        "OPENAI_API_KEY", "API key for OPENAI_BASE_URL, if the server wants one.", hides="value"
    )
    model: str = setting("LEDGERLINE_LLM_MODEL", "Name of the language model.", "qwen3:8b")
    temperature: float = setting(
        "LEDGERLINE_LLM_TEMPERATURE",
        "Temperature of the language model: 0 always chooses the most likely token, 2 is the most random.",
        0.0,
        ge=0,
        le=2,
    )
    seed: Whole = setting(
        "LEDGERLINE_LLM_SEED",
        "Random seed of the language model. With temperature 0, the same seed gives the same answers, as far "
        "as the server can.",
        0,
        ge=0,
    )
    context_tokens: Positive = setting(
        "LEDGERLINE_LLM_CONTEXT_TOKENS",
        "Context length of the language model, input and output together, up to what the model was made for. "
        "Only Ollama reads it; other servers have their own setting.",
        16_384,
        unit="tokens",
    )
    output_tokens: Positive = setting(
        "LEDGERLINE_LLM_OUTPUT_TOKENS",
        "Maximum length of one response of the language model, with its thinking.",
        2_048,
        unit="tokens",
    )
    think: Literal["off", "on", "low", "medium", "high"] | None = setting(
        "LEDGERLINE_LLM_THINK",
        "Whether the language model thinks before it answers: off, on, or low, medium and high for models "
        "with levels. Without it, the model's own default applies.",
    )
    embedding_model: str | None = setting(
        "LEDGERLINE_EMBEDDING_MODEL",
        "Embedding model of the same Ollama server for the agents' memory, like nomic-embed-text. Without "
        "it, a local one is used that needs no download.",
    )
    memory_folder: PlaceOrOff = setting(
        "LEDGERLINE_MEMORY",
        "Folder of the agents' memory; off disables the memory.",
        lambda data: str(data["home"] / "agent" / "memory"),
        default_text="$LEDGERLINE_HOME/agent/memory",
    )
    search_url: Address | None = setting(
        "LEDGERLINE_SEARCH_URL",
        "URL of a SearXNG server with which agents search the web. Without it, they cannot.",
        hides="password",
    )
    prompt: str | None = setting(
        "LEDGERLINE_PROMPT",
        "URI of a prompt in MLflow's registry that replaces the project's own: prompts:/analyst/3 or "
        "prompts:/analyst@production.",
    )
    turns: Positive = setting(
        "LEDGERLINE_AGENT_TURNS", "Maximum number of responses of the language model in one execution.", 8
    )
    tool_calls: Positive = setting(
        "LEDGERLINE_AGENT_TOOL_CALLS", "Maximum number of tool calls in one execution.", 16
    )
    tokens: Positive = setting(
        "LEDGERLINE_AGENT_TOKENS",
        "Maximum number of tokens of one execution, input and output together.",
        50_000,
        unit="tokens",
    )
    seconds: Positive = setting(
        "LEDGERLINE_AGENT_SECONDS", "Maximum duration of one execution.", 180, unit="seconds"
    )
    executions: Positive = setting(
        "LEDGERLINE_AGENT_EXECUTIONS", "Maximum number of concurrent executions of one run.", 4
    )
    capture: str | None = setting(
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "Whether traces hold the messages to and from language models and tools, without secrets. This is "
        "OpenTelemetry's own variable: true, span_only and span_and_event record them, and every other value "
        "does not.",
        default_text="false",
    )

    @property
    def address(self) -> str:
        """The URL of the language model's server."""
        return self.ollama_host if self.provider == OLLAMA else self.openai_base_url

    @property
    def memory(self) -> str | None:
        """The folder of the memory; None if the memory is disabled."""
        return None if self.memory_folder == OFF else self.memory_folder

    @property
    def captures(self) -> bool:
        """True if traces contain messages."""
        return (self.capture or "").strip().lower() in CAPTURED
