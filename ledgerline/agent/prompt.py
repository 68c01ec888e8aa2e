"""What the model is told before the question. Which text that is, and its versions, are decided elsewhere."""

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment


class PromptError(LedgerlineError):
    """The template cannot be filled in; the message names it and says why."""


@dataclass(frozen=True)
class Prompt:
    """A template with {{ variables }}, as MLflow's prompt registry has them.

    Attributes:
        name: In the registry.
        template: The text; Jinja in a sandbox.
        version: In the registry; None: it is not registered there.
    """

    name: str
    template: str
    version: int | None = None

    @property
    def sha256(self) -> str:
        """Of the template."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def render(self, **values: Any) -> str:
        """Fill in the variables.

        Raises:
            PromptError: The template is wrong, or asks for a variable that there is not.
        """
        from jinja2 import TemplateError

        try:
            return _compiled(self.template).render(values)
        # Besides Jinja's own: what expressions of a template may raise, as Python's would.
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
            which = self.name if self.version is None else f"{self.name} version {self.version}"
            there_are = ", ".join(sorted(values)) or "no variables"
            raise PromptError(
                f"Prompt {which} cannot be filled in: {error}. It may use {there_are}."
            ) from error


@cache
def _environment() -> "ImmutableSandboxedEnvironment":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # In a sandbox: whoever may write prompts in the registry must not get to run code here.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


@lru_cache(maxsize=16)
def _compiled(template: str) -> "Template":
    return _environment().from_string(template)
