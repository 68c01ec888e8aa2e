"""Tests the output of `ledgerline registry` for a model whose journal has all kinds of entries."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from ledgerline.cli import stages
from ledgerline.mlflow_store.store import connect
from ledgerline.registry import moves, promotion
from ledgerline.registry.evidence import APPROVED_BY_TAG
from ledgerline.registry.history import PROMOTION, REGISTRATION, Approval, Evaluation, Move
from ledgerline.registry.registry import Registry
from ledgerline.registry.stages import PRODUCTION, STAGING
from ledgerline.registry.versions import RegisteredModel

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
def registry(client: "MlflowClient") -> Registry:
    return Registry(client)


@pytest.fixture
def clicked(client: "MlflowClient") -> None:
    """Version 1 is registered, evaluated, approved and promoted, and then replaced outside the journal."""
    model = Registry(client).model(NAME).reconcile()
    by = f"Dagster run {RUN}"
    now = datetime.now(UTC)
    model = moves.move(model, Move(now, STAGING, None, 1, REGISTRATION, by, run_id=RUN))
    promotion.record_evaluation(
        RegisteredModel(client, NAME), Evaluation(now, 1, None, True, [], "e" * 64, "run", by, RUN)
    )
    promotion.record_evaluation(
        RegisteredModel(client, NAME),
        Evaluation(now, 2, None, False, ["calibrated", "fast_enough"], "f" * 64, "run", by),
    )
    model.journal.add(Approval(now, 1, "e" * 64, "Ada", "looks good"))
    model = Registry(client).model(NAME).reconcile()
    moves.move(model, Move(datetime.now(UTC), PRODUCTION, None, 1, PROMOTION, "Ada", "it is time"))
    client.set_registered_model_alias(NAME, PRODUCTION, "2")


@pytest.fixture
def reconciled(registry: Registry, clicked: None) -> None:
    """The change outside the journal is recorded, too."""
    registry.model(NAME).reconcile()


def printed(width: int = 132) -> Console:
    return Console(file=io.StringIO(), width=width)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.usefixtures("reconciled")
def test_the_history_has_the_change_its_author_and_its_cause(registry: Registry) -> None:
    console = printed()
    stages.print_history(console, registry.model(NAME), None, as_json=False)
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
            "failed calibrated, fast_enough",
        ],
        ["version 1 approved", "Ada", "looks good"],
        ["production: none -> 1, promotion", "Ada", "it is time"],
        ["production: 1 -> 2, changed outside", "unknown", "changed outside, no evidence"],
    ]


@pytest.mark.usefixtures("reconciled")
def test_the_history_is_json_for_programs(registry: Registry) -> None:
    console = printed()
    stages.print_history(console, registry.model(NAME), None, as_json=True)
    document = json.loads(text(console))
    entries = document["entries"]
    assert document["differences"] == []
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


@pytest.mark.usefixtures("reconciled")
def test_the_production_version_of_a_moment_is_printed_with_its_end(registry: Registry) -> None:
    history = registry.model(NAME).reconcile().history
    first, second = history.periods()
    console = printed(200)
    stages.print_history(console, registry.model(NAME), first.since, as_json=False)
    # The change was noticed later: it may have been at any moment since the last poll.
    assert "production was moving at" in text(console)
    assert "stages version 1 was in production" in text(console)
    assert "stages version 2 was in production" in text(console)
    console = printed(200)
    stages.print_history(console, registry.model(NAME), second.since, as_json=False)
    assert "stages version 2 was in production" in text(console)
    assert "and still is (entry 6: production: 1 -> 2, changed outside by unknown)" in text(console)
    console = printed(200)
    stages.print_history(console, registry.model(NAME), first.since - timedelta(days=1), as_json=False)
    assert text(console).startswith("No version of stages is known to have been in production at ")


@pytest.mark.usefixtures("reconciled")
def test_versions_are_printed_with_their_stage_and_missing_steps(registry: Registry) -> None:
    console = printed()
    stages.print_model(console, registry.model(NAME), None)
    rows = [
        [cell.strip() for cell in line.split("│")[1:7]]
        for line in text(console).splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["1", "staging", "2013-07-01", "missing", "0.5368", "passed"],
        ["2", "production", "missing", "missing", "missing", "refused"],
    ]


@pytest.mark.usefixtures("reconciled")
def test_a_version_is_printed_with_its_whole_history(registry: Registry, client: "MlflowClient") -> None:
    client.set_model_version_tag(NAME, "1", APPROVED_BY_TAG, "Ada")
    console = printed()
    stages.print_model(console, registry.model(NAME), 1)
    output = text(console)
    assert "stages version 1" in output
    for happened in (
        "staging: none -> 1, registration  by Dagster run 0d9c3b0e",
        "version 1 against the baseline: passed",
        "version 1 approved  by Ada  looks good",
        "production: 1 -> 2, changed outside  by unknown",
    ):
        assert happened in output
    assert "version 2 against" not in output


@pytest.mark.usefixtures("reconciled")
def test_every_model_is_listed_with_its_aliases(registry: Registry) -> None:
    console = printed()
    stages.print_models(console, registry)
    (row,) = [line for line in text(console).splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in row.split("│")[1:5]] == ["stages", "1", "2", "2"]


def test_a_registry_without_models_is_reported_with_a_remedy(mlflow_database: str) -> None:
    console = printed()
    stages.print_models(console, Registry(connect(mlflow_database)))
    assert "No model is registered yet" in text(console)


def test_a_model_without_changes_has_no_history(registry: Registry) -> None:
    console = printed()
    stages.print_history(console, registry.model(NAME), None, as_json=False)
    assert "The journal of stages has no entries." in text(console)


DIFFERENCE = (
    "production is version 2, the journal says version 1.\n"
    "Aliases were changed outside the journal; `ledgerline registry reconcile stages` records it.\n"
)


@pytest.mark.usefixtures("clicked")
@pytest.mark.parametrize("number", [None, 1])
def test_a_model_is_printed_with_aliases_that_differ_from_its_journal(
    registry: Registry, client: "MlflowClient", number: int | None
) -> None:
    console = printed()
    stages.print_model(console, registry.model(NAME), number)
    assert text(console).endswith(DIFFERENCE)
    assert len(registry.model(NAME).history().entries) == 5  # nothing was recorded


@pytest.mark.usefixtures("clicked")
@pytest.mark.parametrize("ago", [None, timedelta(0)])
def test_the_history_prints_aliases_that_differ_and_records_nothing(
    registry: Registry, ago: timedelta | None
) -> None:
    at = datetime.now(UTC) - ago if ago is not None else None
    for _ in range(2):
        console, document = printed(), printed()
        stages.print_history(console, registry.model(NAME), at, as_json=False)
        stages.print_history(document, registry.model(NAME), at, as_json=True)
        assert text(console).endswith(DIFFERENCE)
        assert json.loads(text(document))["differences"] == [
            {"alias": "production", "current": 2, "recorded": 1}
        ]
    assert len(registry.model(NAME).history().entries) == 5


@pytest.mark.usefixtures("clicked")
def test_a_reconciliation_reports_what_it_recorded_and_is_safe_to_repeat(registry: Registry) -> None:
    console = printed()
    stages.print_reconciliation(console, registry.model(NAME))
    stages.print_reconciliation(console, registry.model(NAME))
    assert text(console) == (
        "Recorded as entry 6: production: 1 -> 2, changed outside\n"
        "Nothing differed: the aliases of stages match its journal.\n"
    )


@pytest.mark.usefixtures("reconciled")
def test_authors_and_causes_fit_into_eighty_columns(registry: Registry) -> None:
    console = printed(80)
    stages.print_history(console, registry.model(NAME), None, as_json=False)
    lines = text(console).splitlines()
    assert max(len(line) for line in lines) <= 80
    cells = [[cell.strip() for cell in line.split("│")[1:6]] for line in lines if line.startswith("│")]
    words = [" ".join(cell for cell in column if cell) for column in zip(*cells, strict=True)]
    assert "Dagster run 0d9c3b0e" in words[3]
    assert words[3].endswith("Ada Ada unknown")
    assert words[4] == "failed calibrated, fast_enough looks good it is time changed outside, no evidence"
