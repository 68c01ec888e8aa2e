"""The resource that opens agents for steps. The agents themselves are in ledgerline/agent/."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.settings.agents import ADDRESS_VARIABLES, AgentSettings
from ledgerline.settings.declaration import settings_of
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from ledgerline.agent.agent import Agent
    from ledgerline.agent.language_model import LanguageModel
    from ledgerline.agent.memory import Memory
    from ledgerline.agent.prompt import Prompt
    from ledgerline.agent.tools import Tool

TRACER = "ledgerline.agent"

# The values of these variables are redacted in traces; some contain several values, or headers.
SECRET_VARIABLES = (
    "OPENAI_API_KEY",
    "OLLAMA_API_KEY",
    "LEDGERLINE_WEBHOOK_SECRET",
    "LEDGERLINE_ALERT_URL",
    "LEDGERLINE_SERVING_TOKENS",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "OPENLINEAGE_API_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)


DECLARED = {setting.attribute: setting for setting in settings_of(AgentSettings)}


def _like(attribute: str, **bounds: Any) -> Any:
    """Return a field with the default and the description of a setting."""
    setting = DECLARED[attribute]
    unit = f" in {setting.unit}" if setting.unit else ""
    default = f" Default: {setting.default}{unit}." if setting.default else ""
    text = f"{setting.description} ({setting.name}){default}"
    return Field(default=setting.field.default, description=text, **bounds)


class AgentResource(dg.ConfigurableResource):
    """Opens agents, which answer questions with a language model, tools and memory."""

    provider: str = _like("provider")
    address: str = Field(description="URL of the language model's server (OLLAMA_HOST or OPENAI_BASE_URL).")
    model: str = _like("model")
    api_key: str | None = _like("api_key")
    temperature: float = _like("temperature")
    seed: int = _like("seed")
    context_tokens: int = _like("context_tokens", gt=0)
    output_tokens: int = _like("output_tokens", gt=0)
    think: str | None = _like("think", pattern="^(off|on|low|medium|high)$")
    embedding_model: str | None = _like("embedding_model")
    search_url: str | None = _like("search_url")
    memory: str | None = Field(
        default=None, description="Folder of the agent's memory (LEDGERLINE_MEMORY). Default: no memory."
    )
    turns: int = _like("turns")
    tool_calls: int = _like("tool_calls")
    tokens: int = _like("tokens")
    seconds: float = _like("seconds")
    prompt: str | None = _like("prompt")
    captures: bool = Field(
        default=False,
        description="Whether traces hold messages (OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT). "
        "Default: false.",
    )

    def language_model(self) -> "LanguageModel":
        """Return the language model; no request is sent yet.

        Raises:
            PermanentFailure: The address is invalid, or the extra `agent` is not installed.
        """
        _require_extra()
        from ledgerline.agent.language_model import ServerAddressError
        from ledgerline.agent.messages import Thinking

        if self.provider == "openai":
            from ledgerline.agent.openai_provider import OpenAIModel

            make = partial(OpenAIModel, api_key=self.api_key)
        else:
            from ledgerline.agent.ollama_provider import OllamaModel

            make = partial(OllamaModel, context_tokens=self.context_tokens)
        try:
            return make(
                self.address,
                self.model,
                temperature=self.temperature,
                seed=self.seed,
                max_output_tokens=self.output_tokens,
                think=None if self.think is None else Thinking(self.think),
            )
        except ServerAddressError as error:
            variable = ADDRESS_VARIABLES[self.provider]
            raise PermanentFailure(
                error.problem, f"Set {variable} to the address of a server, or remove it."
            ) from None

    def require(self) -> None:
        """Check within seconds that the language model's server responds and has the model.

        Raises:
            PermanentFailure: The server does not respond, or does not have the model.
        """
        from ledgerline.agent.language_model import LanguageModelError

        try:
            self.language_model().require()
        except LanguageModelError as error:
            raise PermanentFailure(error.problem, error.remedy) from error

    def agent(
        self,
        name: str,
        prompt: "Prompt",
        tools: "Sequence[Tool[Any]]",
        memory: "Memory | None",
        tracer: "Tracer",
        *,
        finding: Callable[[str], str | None] | None = None,
    ) -> "Agent":
        """Return an agent with the budget of this resource, and with web search if a server is configured.

        `finding` returns the fact that an answer states; without it, any text is an answer.
        """
        from ledgerline.agent.agent import Agent, non_empty
        from ledgerline.agent.execution import Budget
        from ledgerline.agent.recording import Recorder
        from ledgerline.agent.search_tool import SearchTool
        from ledgerline.cleaning.texts import Cleaner

        search_tools = [SearchTool(self.search_url)] if self.search_url else []
        return Agent(
            name,
            self.language_model(),
            prompt,
            [*tools, *search_tools],
            memory,
            Budget(self.turns, self.tool_calls, self.tokens, self.seconds),
            Recorder(tracer, self.captures, Cleaner.of(_secrets())),
            finding or non_empty,
        )

    def open_memory(self) -> "Memory | None":
        """Return the agent's memory; None if it is turned off."""
        if self.memory is None:
            return None
        _require_extra()
        from ledgerline.agent.memory import Memory
        from ledgerline.agent.ollama_embedder import OllamaEmbedder

        embedder = None
        if self.embedding_model is not None:
            embedder = OllamaEmbedder(self.address, self.embedding_model)
        return Memory(Path(self.memory), embedder)


def _require_extra() -> None:
    """Check that the extra `agent` is installed."""
    with permanent_failures():
        require("agent", "An agent")


def _secrets() -> Iterator[str]:
    for name in SECRET_VARIABLES:
        for part in (dg.EnvVar(name).get_value() or "").split(","):
            yield part.strip()
            yield part.partition("=")[2].strip()
