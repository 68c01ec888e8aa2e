"""Tests prompts as agents use them: registered once, chosen from the registry, or refused."""

from typing import TYPE_CHECKING

import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.prompts import registered_prompt
from ledgerline.dagster.tracking import MLflowResource

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The name of a prompt that only this test uses: tests share a server."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


def test_a_text_is_registered_once_and_a_change_is_the_next_version(
    mlflow: MLflowResource, name: str
) -> None:
    first = registered_prompt(mlflow, name, "Be terse.", None)
    again = registered_prompt(mlflow, name, "Be terse.", None)
    changed = registered_prompt(mlflow, name, "Be brief. {{ memories }}", None)
    assert (first.name, first.version, first.template) == (name, 1, "Be terse.")
    assert again == first
    assert (changed.version, changed.template) == (2, "Be brief. {{ memories }}")
    assert changed.render(memories="none") == "Be brief. none"


def test_a_prompt_of_the_registry_replaces_it(
    mlflow: MLflowResource, name: str, client: "MlflowClient"
) -> None:
    client.register_prompt(name, "Be terse.")
    client.register_prompt(name, "Be brief.")
    client.set_prompt_alias(name, "production", 1)
    found = registered_prompt(mlflow, "own", "My own.", f"prompts:/{name}@production")
    assert (found.name, found.version, found.template) == (name, 1, "Be terse.")
    assert registered_prompt(mlflow, "own", "My own.", f"prompts:/{name}/2").template == "Be brief."


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("prompts:/nobody/1", "has no prompts:/nobody/1"),
        ("prompts:/nobody@production", "has no prompts:/nobody@production"),
        ("nobody", "'nobody' is not the URI of a prompt"),
    ],
)
def test_a_missing_prompt_is_refused_with_a_remedy(address: str, problem: str, mlflow_database: str) -> None:
    database = MLflowResource(tracking_uri=mlflow_database, experiment="analyst")
    with pytest.raises(PermanentFailure, match=problem) as caught:
        registered_prompt(database, "own", "My own.", address)
    assert "LEDGERLINE_PROMPT" in str(caught.value)


def test_an_unavailable_server_is_reported_at_once(free_port: int) -> None:
    gone = MLflowResource(tracking_uri=f"http://user:s3cret@127.0.0.1:{free_port}", experiment="analyst")
    with pytest.raises(PermanentFailure, match="does not respond") as caught:
        registered_prompt(gone, "own", "My own.", None)
    assert "s3cret" not in str(caught.value)
