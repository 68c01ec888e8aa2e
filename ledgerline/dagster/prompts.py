"""Loads the prompt of an agent: the prompt of the project, or one of MLflow's prompt registry."""

from typing import TYPE_CHECKING

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.mlflow_store import prompts
from ledgerline.mlflow_store.prompts import RegisteredPrompt, UnknownPromptError

if TYPE_CHECKING:
    from ledgerline.agent.prompt import Prompt


def registered_prompt(mlflow: MLflowResource, name: str, template: str, address: str | None) -> "Prompt":
    """Return the prompt at an address in MLflow's prompt registry, or by default the prompt of the project.

    The text of the project's prompt is registered if it differs from the latest version.

    Raises:
        PermanentFailure: MLflow is unavailable, or has no such prompt.
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
