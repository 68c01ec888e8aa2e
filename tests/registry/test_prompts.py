"""Tests versions of prompts in a real MLflow database."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ledgerline.mlflow_store import prompts, store
from ledgerline.mlflow_store.prompts import RegisteredPrompt, UnknownPromptError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> "MlflowClient":
    folder: Path = tmp_path_factory.mktemp("prompts")
    return store.connect(f"sqlite:///{folder}/mlflow.db")


def test_the_same_text_is_one_version_and_another_text_is_the_next(client: "MlflowClient") -> None:
    experiment = store.experiment_id(client, "prompts", None)
    first = prompts.register(client, "answers", "Answer {{ question }}.", experiment)
    again = prompts.register(client, "answers", "Answer {{ question }}.", experiment)
    second = prompts.register(client, "answers", "Answer {{ question }} briefly.", experiment)

    assert first == again == RegisteredPrompt("answers", 1, "Answer {{ question }}.")
    assert (second.version, second.uri) == (2, "prompts:/answers/2")


def test_a_version_is_found_by_number_and_by_alias(client: "MlflowClient") -> None:
    experiment = store.experiment_id(client, "prompts", None)
    for text in ("one", "two", "three"):
        prompts.register(client, "counted", text, experiment)
    client.set_prompt_alias("counted", "production", 2)

    assert prompts.load(client, "prompts:/counted/1").template == "one"
    assert prompts.load(client, "prompts:/counted@production").version == 2
    assert prompts.load(client, "prompts:/counted@latest").version == 3


def test_a_moved_alias_is_read_at_once(client: "MlflowClient") -> None:
    experiment = store.experiment_id(client, "prompts", None)
    for text in ("one", "two"):
        prompts.register(client, "moved", text, experiment)
    found = []
    for version in (1, 2):
        client.set_prompt_alias("moved", "production", version)
        found.append(prompts.load(client, "prompts:/moved@production").version)

    assert found == [1, 2]


def test_the_experiment_lists_the_prompt(client: "MlflowClient") -> None:
    experiment = store.experiment_id(client, "prompts", None)
    prompts.register(client, "listed", "text", experiment)

    found = client.search_prompts(filter_string=f'experiment_id = "{experiment}"')

    assert "listed" in [prompt.name for prompt in found]


@pytest.mark.parametrize(
    "uri", ["prompts:/nobody/1", "prompts:/nobody@production", "prompts:/", "prompts:/x", "answers/1", ""]
)
def test_a_missing_version_is_named(client: "MlflowClient", uri: str) -> None:
    with pytest.raises(UnknownPromptError) as refused:
        prompts.load(client, uri)

    assert repr(uri) in str(refused.value) or uri in str(refused.value)


def test_a_list_of_messages_is_refused(client: "MlflowClient") -> None:
    client.register_prompt("chat", [{"role": "user", "content": "{{ question }}"}])

    with pytest.raises(UnknownPromptError, match="list of messages"):
        prompts.load(client, "prompts:/chat/1")
