"""Renders the system prompt. Its text and versions are managed in dagster/prompts.py."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    from jinja2 import Template


class PromptError(LedgerlineError):
    """A prompt's template cannot be rendered."""


@dataclass(frozen=True)
class Prompt:
    """A template with {{ variables }}, as in MLflow's prompt registry.

    Attributes:
        name: Name in the registry.
        template: Text in Jinja's syntax, which is rendered in a sandbox.
        version: Version in the registry; None if the prompt is not registered.

    Example:
        >>> template = "Answer briefly.{% if memories %} Known: {{ memories }}{% endif %}"
        >>> Prompt("analyst", template).render(memories="It snowed.")
        'Answer briefly. Known: It snowed.'
    """

    name: str
    template: str
    version: int | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of the template, in hexadecimal."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def render(self, **values: Any) -> str:
        """Return the text with the values of its variables.

        Raises:
            PromptError: The template is invalid, or uses another variable.
        """
        from jinja2 import TemplateError

        try:
            return _compiled(self.template).render(values)
        # Besides Jinja's own errors, expressions of a template may raise these, as expressions of Python do.
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            prompt = self.name if self.version is None else f"{self.name} version {self.version}"
            allowed = f"only these variables: {', '.join(sorted(values))}" if values else "no variables"
            raise PromptError(f"Prompt {prompt} cannot be rendered: {error}.", f"Use {allowed}.") from error


@lru_cache(maxsize=16)
def _compiled(template: str) -> "Template":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # A sandbox is used because a person who may write prompts to the registry must not be able to run code.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    return environment.from_string(template)
