"""Versions of prompts in MLflow's prompt registry. What they say, and who uses them, is not known here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import PromptVersion

SCHEME = "prompts:/"
LATEST = "latest"  # an alias that MLflow keeps itself


class UnknownPromptError(Exception):
    """The registry has no such prompt; the message names it."""


@dataclass(frozen=True)
class RegisteredPrompt:
    """A version of a prompt.

    Attributes:
        name: The prompt's.
        version: Its number, from 1 on.
        template: Its text, with {{ variables }}.
    """

    name: str
    version: int
    template: str

    @property
    def uri(self) -> str:
        """As MLflow names it."""
        return f"{SCHEME}{self.name}/{self.version}"


def register(client: "MlflowClient", name: str, template: str, experiment_id: str) -> RegisteredPrompt:
    """The version with this text: the latest one if it has it, or else a new one.

    Args:
        client: An open client.
        name: The prompt's.
        template: Its text.
        experiment_id: Of the experiment that lists it among its prompts.
    """
    from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY

    latest = _found(client, name, LATEST)
    if latest is not None and latest.template == template:
        return latest
    listed_in = {PROMPT_EXPERIMENT_IDS_TAG_KEY: f",{experiment_id},"}
    return _as_ours(client.register_prompt(name, template, tags=listed_in))


def load(client: "MlflowClient", uri: str) -> RegisteredPrompt:
    """A version by its address: `prompts:/analyst/3`, or `prompts:/analyst@production`.

    Raises:
        UnknownPromptError: There is none, or it is no text, or that is no address.
    """
    name, separator, which = uri.removeprefix(SCHEME).rpartition("@" if "@" in uri else "/")
    if not uri.startswith(SCHEME) or not separator or not name or not which:
        raise UnknownPromptError(
            f"{uri!r} is no address of a prompt; write it like {SCHEME}analyst/3 or "
            f"{SCHEME}analyst@production."
        )
    found = _found(client, name, which)
    if found is None:
        raise UnknownPromptError(f"MLflow's prompt registry has no {uri}.")
    return found


def _found(client: "MlflowClient", name: str, which: str) -> RegisteredPrompt | None:
    from mlflow.exceptions import MlflowException

    try:
        # Not load_prompt, which caches, and lists the prompt in whatever experiment is active.
        found = (
            client.get_prompt_version(name, which)
            if which.isdecimal()
            else client.get_prompt_version_by_alias(name, which)
        )
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return _as_ours(found) if found is not None else None


def _as_ours(prompt: "PromptVersion") -> RegisteredPrompt:
    if not isinstance(prompt.template, str):
        raise UnknownPromptError(
            f"{SCHEME}{prompt.name}/{prompt.version} is a list of messages; a text is needed."
        )
    return RegisteredPrompt(prompt.name, int(prompt.version), prompt.template)
