"""What the model is told before the question. Which text that is, and its versions, are decided elsewhere."""

import hashlib
from dataclasses import dataclass
from typing import Any


class PromptError(ValueError):
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
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # In a sandbox: whoever may write prompts in the registry must not get to run code here.
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        try:
            return environment.from_string(self.template).render(values)
        except TemplateError as error:
            which = self.name if self.version is None else f"{self.name} version {self.version}"
            raise PromptError(
                f"Prompt {which} cannot be filled in: {error}. It may use {', '.join(sorted(values))}."
            ) from error
