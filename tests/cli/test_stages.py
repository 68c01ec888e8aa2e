"""What `ledgerline registry` prints of a model whose journal has all kinds of entries."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from ledgerline.cli import stages
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.registry import moves, promotion
from ledgerline.registry.evidence import APPROVED_BY_TAG
from ledgerline.registry.history import PROMOTION, REGISTRATION, Approval, Evaluation, Move
from ledgerline.registry.stages import PRODUCTION, STAGING

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "stages"
RUN = "0d9c3b0e-7a43-4a35-9d8a-3a5b1f0a9f11"


@pytest.fixture
def client(mlflow_database: str) -> "MlflowClient":
    from ledgerline.mlflow_store.store import connect

    client = connect(mlflow_database)
    client.create_registered_model(NAME)
    client.create_model_version(NAME, "/nowhere/1", tags={"month": "2013-07-01", "log_loss": "0.536871"})
    client.create_model_version(NAME, "/nowhere/2")
    return client


@pytest.fixture
def registry(client: "MlflowClient") -> ModelRegistryResource:
    return ModelRegistryResource(tracking_uri=client.tracking_uri)


@pytest.fixture
def told(client: "MlflowClient") -> None:
    """Registered by a run, judged, approved and promoted, and then replaced by somebody's click."""
    model = moves.settled(client, NAME)
    by = f"Dagster run {RUN}"
    now = datetime.now(UTC)
    model = moves.move(model, Move(now, STAGING, None, 1, REGISTRATION, by, run_id=RUN))
    promotion.record_evaluation(client, NAME, Evaluation(now, 1, None, True, [], "e" * 64, "run", by, RUN))
    promotion.record_evaluation(
        client, NAME, Evaluation(now, 2, None, False, ["calibrated", "fast_enough"], "f" * 64, "run", by)
    )
    model.journal.add(Approval(now, 1, "e" * 64, "Ada", "looks good"))
    model = moves.settled(client, NAME)
    moves.move(model, Move(datetime.now(UTC), PRODUCTION, None, 1, PROMOTION, "Ada", "it is time"))
    client.set_registered_model_alias(NAME, PRODUCTION, "2")


def printed(width: int = 132) -> Console:
    return Console(file=io.StringIO(), width=width)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.usefixtures("told")
def test_the_history_says_what_who_and_why(registry: ModelRegistryResource) -> None:
    console = printed()
    stages.print_history(console, registry, NAME, None, as_json=False)
    cells = [
        [cell.strip() for cell in line.split("│")[3:6]]
        for line in text(console).splitlines()
        if line.startswith("│")
    ]
    assert cells == [
        ["staging: none -> 1, registration", "Dagster run 0d9c3b0e", ""],
        ["version 1 against the baseline: passed", "Dagster run 0d9c3b0e", ""],
        [
            "version 2 against the baseline: refused",
            "Dagster run 0d9c3b0e",
            "broke calibrated, fast_enough",
        ],
        ["version 1 approved", "Ada", "looks good"],
        ["production: none -> 1, promotion", "Ada", "it is time"],
        ["production: 1 -> 2, changed outside", "unknown", "changed outside, no evidence"],
    ]


@pytest.mark.usefixtures("told")
def test_the_history_is_json_for_programs(registry: ModelRegistryResource) -> None:
    console = printed()
    stages.print_history(console, registry, NAME, None, as_json=True)
    entries = json.loads(text(console))
    assert [entry["kind"] for entry in entries] == [
        "move",
        "evaluation",
        "evaluation",
        "approval",
        "move",
        "move",
    ]
    assert entries[2]["broken_rules"] == ["calibrated", "fast_enough"]
    assert datetime.fromisoformat(entries[4]["ended_at"]) >= datetime.fromisoformat(entries[4]["at"])


@pytest.mark.usefixtures("told")
def test_at_a_moment_it_says_who_was_in_production_and_until_when(registry: ModelRegistryResource) -> None:
    history = registry.settled_history(NAME)
    first, second = history.holdings()
    console = printed(200)
    stages.print_history(console, registry, NAME, first.since, as_json=False)
    # The click was noticed and not seen: it may have been at any moment since.
    assert "production was moving at" in text(console)
    assert "stages version 1 was in production" in text(console)
    assert "stages version 2 was in production" in text(console)
    console = printed(200)
    stages.print_history(console, registry, NAME, second.since, as_json=False)
    assert "stages version 2 was in production" in text(console)
    assert "and still is (entry 6: production: 1 -> 2, changed outside by unknown)" in text(console)
    console = printed(200)
    stages.print_history(console, registry, NAME, first.since - timedelta(days=1), as_json=False)
    assert text(console).startswith("No version of stages is known to have been in production at ")


@pytest.mark.usefixtures("told")
def test_versions_are_shown_with_their_stage_and_what_is_missing(registry: ModelRegistryResource) -> None:
    console = printed()
    stages.print_model(console, registry, NAME, None)
    rows = [
        [cell.strip() for cell in line.split("│")[1:7]]
        for line in text(console).splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["1", "staging", "2013-07-01", "missing", "0.5368", "passed"],
        ["2", "production", "missing", "missing", "missing", "refused"],
    ]


@pytest.mark.usefixtures("told")
def test_a_version_is_shown_with_all_that_happened_to_it(
    registry: ModelRegistryResource, client: "MlflowClient"
) -> None:
    client.set_model_version_tag(NAME, "1", APPROVED_BY_TAG, "Ada")
    console = printed()
    stages.print_model(console, registry, NAME, 1)
    said = text(console)
    assert "stages version 1" in said
    for happened in (
        "staging: none -> 1, registration  by Dagster run 0d9c3b0e",
        "version 1 against the baseline: passed",
        "version 1 approved  by Ada  looks good",
        "production: 1 -> 2, changed outside  by unknown",
    ):
        assert happened in said
    assert "version 2 against" not in said


@pytest.mark.usefixtures("told")
def test_every_model_is_listed_with_its_aliases(registry: ModelRegistryResource) -> None:
    console = printed()
    stages.print_models(console, registry)
    (row,) = [line for line in text(console).splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in row.split("│")[1:5]] == ["stages", "1", "2", "2"]


def test_without_any_model_it_says_how_to_get_one(mlflow_database: str) -> None:
    console = printed()
    stages.print_models(console, ModelRegistryResource(tracking_uri=mlflow_database))
    assert "No model is registered yet" in text(console)


def test_a_model_that_nothing_happened_to_has_no_history(registry: ModelRegistryResource) -> None:
    console = printed()
    stages.print_history(console, registry, NAME, None, as_json=False)
    assert "Nothing was ever decided about stages." in text(console)
