"""Registers and loads versions of prompts in MLflow's prompt registry. It does not contain their texts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import PromptVersion

SCHEME = "prompts:/"
LATEST = "latest"  # an alias that MLflow maintains


class UnknownPromptError(LedgerlineError):
    """Raised when the registry does not contain a prompt."""


@dataclass(frozen=True)
class RegisteredPrompt:
    """A version of a prompt, whose template is a text with {{ variables }}."""

    name: str
    version: int
    template: str

    @property
    def uri(self) -> str:
        """URI of the version in MLflow."""
        return f"{SCHEME}{self.name}/{self.version}"


def register(client: "MlflowClient", name: str, template: str, experiment_id: str) -> RegisteredPrompt:
    """Return the version with this text: the latest version if its text is the same, or else a new one.

    The experiment with the id lists the prompt.
    """
    from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY

    latest = _version(client, name, LATEST)
    if latest is not None and latest.template == template:
        return latest
    listed_in = {PROMPT_EXPERIMENT_IDS_TAG_KEY: f",{experiment_id},"}
    return _as_ours(client.register_prompt(name, template, tags=listed_in))


def load(client: "MlflowClient", uri: str) -> RegisteredPrompt:
    """Return a version by its URI: `prompts:/analyst/3`, or `prompts:/analyst@production`.

    Raises:
        UnknownPromptError: The version does not exist, is not a text, or has an invalid URI.
    """
    name, separator, which = uri.removeprefix(SCHEME).rpartition("@" if "@" in uri else "/")
    if not uri.startswith(SCHEME) or not separator or not name or not which:
        raise UnknownPromptError(
            f"{uri!r} is not the URI of a prompt.",
            f"Write it like {SCHEME}analyst/3 or {SCHEME}analyst@production.",
        )
    version = _version(client, name, which)
    if version is None:
        raise UnknownPromptError(f"MLflow's prompt registry has no {uri}.")
    return version


def _version(client: "MlflowClient", name: str, which: str) -> RegisteredPrompt | None:
    from mlflow.exceptions import MlflowException

    try:
        # load_prompt would cache the prompt and list it in the active experiment.
        version = (
            client.get_prompt_version(name, which)
            if which.isdecimal()
            else client.get_prompt_version_by_alias(name, which)
        )
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return _as_ours(version) if version is not None else None


def _as_ours(prompt: "PromptVersion") -> RegisteredPrompt:
    if not isinstance(prompt.template, str):
        raise UnknownPromptError(
            f"{SCHEME}{prompt.name}/{prompt.version} is a list of messages.", "Use a prompt that is a text."
        )
    return RegisteredPrompt(prompt.name, int(prompt.version), prompt.template)
