"""Prompts as agents use them: the project's own, which is registered, or one that the registry names."""

from typing import TYPE_CHECKING

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.mlflow_store import prompts
from ledgerline.mlflow_store.prompts import RegisteredPrompt, UnknownPromptError

if TYPE_CHECKING:
    from ledgerline.agent.prompt import Prompt


def registered_prompt(mlflow: MLflowResource, name: str, template: str, address: str | None) -> "Prompt":
    """A prompt with its version in MLflow's prompt registry.

    Args:
        mlflow: Where the registry is.
        name: Of the project's own prompt.
        template: Its text; a text that is not the latest version becomes one.
        address: Of the prompt to use instead; None: the project's own.

    Raises:
        PermanentFailure: MLflow cannot be reached, or has no such prompt.
    """
    client, experiment_id = mlflow.open_experiment()
    if address is None:
        return _usable(prompts.register(client, name, template, experiment_id))
    try:
        return _usable(prompts.load(client, address))
    except UnknownPromptError as error:
        raise PermanentFailure(
            str(error), "Set LEDGERLINE_PROMPT to one that is there, or to nothing."
        ) from error


def _usable(prompt: RegisteredPrompt) -> "Prompt":
    from ledgerline.agent.prompt import Prompt

    return Prompt(prompt.name, prompt.template, prompt.version)
