"""Tests that a journal belongs to one registered model, also when models are renamed or created again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledgerline.cli.main import app
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.registry import evidence, moves
from ledgerline.registry.evidence import EVIDENCE_TAG
from ledgerline.registry.history import PROMOTION, Move
from ledgerline.registry.journal import MODEL_CREATED, Journal, JournalError, experiment_name
from ledgerline.registry.moves import UNDER_WAY, MoveRefusedError
from ledgerline.registry.stages import JOURNAL_TAG, PRODUCTION, SEAL_TAG, STAGING
from ledgerline.registry.versions import SHA256_TAG
from ledgerline.testing.registry_stock import Stock, request
from tests.registry.racers import Racers, Task
from tests.registry.test_moves import waiting


def served_twice(stock: Stock, name: str) -> str:
    """A model whose version 2 was promoted over its version 1."""
    stock.model(name, 2)
    stock.serve(name, 1)
    stock.serve(name, 2)
    return name


def recreate(stock: Stock, name: str) -> None:
    """Delete a model, and make another with its name and as many versions, put into production by hand."""
    stock.client.delete_registered_model(name)
    stock.model(name, 2)
    stock.client.set_registered_model_alias(name, PRODUCTION, "2")


def unbind(stock: Stock, name: str) -> None:
    """Give a model a journal as it was before journals were bound; the first use opens it."""
    Journal.opened(stock.registered(name))


def producers(stock: Stock, name: str) -> list[int | None]:
    """Return the versions that were in production, by the journal of a model."""
    history = stock.registered(name).reconcile().history
    return [move.to_version for _, move, _ in history.moves(PRODUCTION)]


def experiments(stock: Stock, name: str) -> list[str]:
    """The names of the experiments that hold journals of models of a name."""
    found = stock.client.search_experiments(filter_string=f"name LIKE '{experiment_name(name)}%'")
    return sorted(experiment.name for experiment in found)


def experiment_id(stock: Stock, name: str) -> str:
    found = stock.client.get_experiment_by_name(name)
    assert found is not None
    return found.experiment_id


# Created again


def test_a_recreated_model_does_not_inherit_production(any_stock: Stock, model_name: str):
    served_twice(any_stock, model_name)
    earlier = any_stock.journal(model_name).run_id
    recreate(any_stock, model_name)

    with pytest.raises(MoveRefusedError, match=r"Version 1 of .* was never in production\. Promote it"):
        any_stock.rollback(model_name, to=1)
    with pytest.raises(MoveRefusedError, match=r"No version of .* was in production before version 2"):
        any_stock.rollback(model_name)
    with pytest.raises(MoveRefusedError, match="was never evaluated"):
        any_stock.promote(model_name, 1)
    with pytest.raises(MoveRefusedError, match="was never evaluated"):
        any_stock.registered(model_name).approve(1, "ada", "")

    assert any_stock.aliases(model_name) == {PRODUCTION: 2}
    assert producers(any_stock, model_name) == [2]
    any_stock.require_agreement(model_name)
    # The records of the earlier model stay, and can be found.
    (aside,) = any_stock.registered(model_name).journals_of_earlier_models()
    assert experiments(any_stock, model_name) == [experiment_name(model_name), aside]
    (run,) = any_stock.client.search_runs([experiment_id(any_stock, aside)], "run_name = 'journal'")
    assert run.info.run_id == earlier
    assert Journal(any_stock.client, earlier).read().version_with_alias(PRODUCTION) == 2


def test_a_model_recreated_twice_has_a_journal_each_time(stock: Stock, model_name: str):
    for number in range(3):
        served_twice(stock, model_name)
        assert len(stock.registered(model_name).journals_of_earlier_models()) == number
        assert producers(stock, model_name) == [1, 2]
        stock.client.delete_registered_model(model_name)


def test_a_query_of_a_recreated_model_returns_nothing_of_the_earlier_and_writes_nothing(
    any_stock: Stock, model_name: str
):
    served_twice(any_stock, model_name)
    recreate(any_stock, model_name)

    assert any_stock.registered(model_name).inconsistencies() == [
        "production is version 2; there is no journal"
    ]
    registry = ModelRegistryResource(tracking_uri=any_stock.uri)
    assert registry.model(model_name).history().entries == []
    assert experiments(any_stock, model_name) == [experiment_name(model_name)]


def test_a_journal_that_was_deleted_with_its_model_does_not_stop_the_next(any_stock: Stock, model_name: str):
    served_twice(any_stock, model_name)
    experiment = experiment_id(any_stock, experiment_name(model_name))
    any_stock.client.delete_experiment(experiment)
    recreate(any_stock, model_name)

    assert producers(any_stock, model_name) == [2]
    assert any_stock.client.get_experiment(experiment).lifecycle_stage == "deleted"
    any_stock.require_agreement(model_name)


def test_ten_concurrent_processes_begin_one_journal_of_a_recreated_model(
    any_stock: Stock, model_name: str, racers: Racers
):
    served_twice(any_stock, model_name)
    recreate(any_stock, model_name)

    outcomes = racers.run([Task("settle", any_stock.uri, model_name) for _ in range(10)])

    assert [(outcome.returned, outcome.message) for outcome in outcomes] == [(1, "")] * 10
    assert producers(any_stock, model_name) == [2]
    assert len(experiments(any_stock, model_name)) == 2


# Renamed


@pytest.mark.parametrize("first", ["the renamed", "the next of its name"])
def test_the_journal_goes_along_with_a_renamed_model(any_stock: Stock, model_name: str, first: str):
    served_twice(any_stock, model_name)
    renamed = f"{model_name} renamed"
    any_stock.client.rename_registered_model(model_name, renamed)
    any_stock.model(model_name, 2)

    names = (renamed, model_name) if first == "the renamed" else (model_name, renamed)
    found = {name: producers(any_stock, name) for name in names}

    assert found == {renamed: [1, 2], model_name: []}
    assert any_stock.rollback(renamed).version == 1
    with pytest.raises(MoveRefusedError, match="was in production before no version"):
        any_stock.rollback(model_name)
    any_stock.require_agreement(renamed)
    assert any_stock.journal(renamed).read().head == any_stock.history(renamed).head
    assert any_stock.journal(model_name).run_id != any_stock.journal(renamed).run_id
    assert any_stock.registered(model_name).journals_of_earlier_models() == []


def test_two_models_that_swap_their_names_keep_their_journals(any_stock: Stock, model_name: str):
    other, between = f"{model_name} other", f"{model_name} between"
    served_twice(any_stock, model_name)
    any_stock.model(other, 3)
    any_stock.serve(other, 3)

    for before, after in ((model_name, between), (other, model_name), (between, other)):
        any_stock.client.rename_registered_model(before, after)

    assert (producers(any_stock, other), producers(any_stock, model_name)) == ([1, 2], [3])
    for name in (other, model_name):
        any_stock.require_agreement(name)


def test_a_query_of_a_renamed_model_reads_its_journal(stock: Stock, model_name: str):
    served_twice(stock, model_name)
    renamed = f"{model_name} renamed"
    stock.client.rename_registered_model(model_name, renamed)

    assert stock.registered(renamed).inconsistencies() == []
    assert stock.registered(renamed).history().version_with_alias(PRODUCTION) == 2
    assert experiments(stock, renamed) == []


def test_a_journal_whose_experiment_was_renamed_is_found(any_stock: Stock, model_name: str):
    served_twice(any_stock, model_name)
    experiment = experiment_id(any_stock, experiment_name(model_name))
    any_stock.client.rename_experiment(experiment, f"{model_name} my notes")

    assert producers(any_stock, model_name) == [1, 2]

    assert any_stock.client.get_experiment(experiment).name == experiment_name(model_name)


# Journals from before they were bound


def test_a_journal_that_is_not_bound_is_bound_when_it_is_proven_to_be_the_model_s(
    any_stock: Stock, model_name: str
):
    any_stock.model(model_name, 2)
    unbind(any_stock, model_name)
    journal = any_stock.journal(model_name)
    old = replace(any_stock.evaluation(1), by="an old judge")
    journal.add(old)
    any_stock.client.set_model_version_tag(model_name, "1", EVIDENCE_TAG, old.evidence)

    any_stock.serve(model_name, 2)  # the version has the evidence; the model has no tags yet

    created = any_stock.client.get_registered_model(model_name).creation_timestamp
    params = any_stock.client.get_run(journal.run_id).data.params
    assert params[MODEL_CREATED] == str(created)
    known = any_stock.history(model_name).evaluation(1)
    assert known is not None
    assert (known.by, known.evidence) == ("an old judge", old.evidence)
    any_stock.require_agreement(model_name)


def unbound_and_served(stock: Stock, name: str) -> str:
    """A model served twice, whose journal does not name its model."""
    stock.model(name, 2)
    unbind(stock, name)
    journal = stock.journal(name)
    alias_state = stock.registered(name).alias_state()
    for number, before in ((1, None), (2, 1)):
        evaluation = stock.evaluation(number, against=before)
        journal.add(evaluation)
        stock.client.set_model_version_tag(name, str(number), EVIDENCE_TAG, evaluation.evidence)
        at = evaluation.at
        wanted = Move(at, PRODUCTION, before, number, PROMOTION, "ada", evidence=evaluation.evidence)
        moves.move(moves.ReconciledModel(stock.registered(name), journal, journal.read()), wanted)
    assert alias_state.created
    assert MODEL_CREATED not in stock.client.get_run(journal.run_id).data.params
    return name


def test_a_recreated_model_does_not_inherit_a_journal_that_is_not_bound(any_stock: Stock, model_name: str):
    unbound_and_served(any_stock, model_name)
    recreate(any_stock, model_name)

    with pytest.raises(MoveRefusedError, match=r"was never in production"):
        any_stock.rollback(model_name, to=1)

    assert producers(any_stock, model_name) == [2]


def test_a_journal_that_is_not_bound_goes_along_with_a_renamed_model_that_seals_it(
    any_stock: Stock, model_name: str
):
    unbound_and_served(any_stock, model_name)
    renamed = f"{model_name} renamed"
    any_stock.client.rename_registered_model(model_name, renamed)
    any_stock.model(model_name, 2)

    assert producers(any_stock, model_name) == []
    assert producers(any_stock, renamed) == [1, 2]
    any_stock.require_agreement(renamed)


def test_an_older_model_renamed_to_the_name_of_a_journal_that_is_not_bound_does_not_get_it(
    stock: Stock, model_name: str
):
    older = stock.model(f"{model_name} older", 2)
    unbound_and_served(stock, model_name)
    stock.client.delete_registered_model(model_name)
    stock.client.rename_registered_model(older, model_name)

    with pytest.raises(
        JournalError, match=f"It is unknown whether .* set the model's tag {JOURNAL_TAG} to 4"
    ):
        stock.rollback(model_name, to=1)

    assert stock.aliases(model_name) == {}
    stock.client.rename_experiment(experiment_id(stock, experiment_name(model_name)), "an earlier model's")
    assert producers(stock, model_name) == []


def test_a_bound_journal_needs_no_tags_of_the_model(any_stock: Stock, model_name: str):
    served_twice(any_stock, model_name)
    for tag in (JOURNAL_TAG, SEAL_TAG):
        any_stock.client.delete_registered_model_tag(model_name, tag)
    for number in (1, 2):
        any_stock.client.delete_model_version_tag(model_name, str(number), EVIDENCE_TAG)

    assert producers(any_stock, model_name) == [1, 2]


def test_the_binding_of_a_journal_cannot_be_changed(any_stock: Stock, model_name: str):
    served_twice(any_stock, model_name)
    journal = any_stock.journal(model_name)
    bound = journal.model_created

    journal.bind(1)

    assert bound is not None
    assert any_stock.journal(model_name).model_created == journal.model_created == bound


# Every move is to what was evaluated


def replace_files(stock: Stock, name: str, number: int) -> None:
    """Let a version record other files, which are complete."""
    sha256 = stock.tags(name, stock.version(name, weights="other weights"))[SHA256_TAG]
    stock.client.set_model_version_tag(name, str(number), SHA256_TAG, sha256)


def roll_back(stock: Stock, name: str) -> None:
    stock.rollback(name, to=1)


def stage_again(stock: Stock, name: str) -> None:
    ModelRegistryResource(tracking_uri=stock.uri).model(name).stage(1, request())


def promote_again(stock: Stock, name: str) -> None:
    stock.promote(name, 1)


def approve_again(stock: Stock, name: str) -> None:
    stock.registered(name).approve(1, "ada", "")


@pytest.mark.parametrize("do", [roll_back, stage_again])
def test_a_version_with_another_sha256_than_its_evidence_is_not_moved_to(
    any_stock: Stock, model_name: str, do: Callable[[Stock, str], None]
):
    served_twice(any_stock, model_name)
    before = any_stock.aliases(model_name)
    replace_files(any_stock, model_name, 1)

    with pytest.raises(Exception, match=r"records sha256 .*, and files with sha256 .* were evaluated"):
        do(any_stock, model_name)

    assert any_stock.aliases(model_name) == before
    any_stock.require_agreement(model_name)


@pytest.mark.parametrize("do", [promote_again, approve_again])
def test_a_version_with_another_sha256_than_its_evidence_is_neither_promoted_nor_approved(
    stock: Stock, model_name: str, do: Callable[[Stock, str], None]
):
    served_twice(stock, model_name)
    stock.evaluate(model_name, 1, against=2)
    replace_files(stock, model_name, 1)

    with pytest.raises(MoveRefusedError, match="records sha256"):
        do(stock, model_name)

    assert stock.aliases(model_name) == {PRODUCTION: 2}


def test_a_rollback_without_the_evidence_that_it_rests_on_is_refused(stock: Stock, model_name: str):
    served_twice(stock, model_name)
    evaluation = stock.history(model_name).evaluation(1)
    assert evaluation is not None
    stock.client.log_text(evaluation.evidence_run_id, json.dumps(stock.document(1)), evidence.FILE)

    with pytest.raises(MoveRefusedError, match=r"was edited: evidence.json .* Compare it again"):
        stock.rollback(model_name)

    stock.evaluate(model_name, 1, against=2)
    assert stock.rollback(model_name).version == 1


def test_a_rollback_to_a_version_set_by_hand_needs_no_evidence(stock: Stock, model_name: str):
    stock.model(model_name, 2)
    stock.client.set_registered_model_alias(model_name, PRODUCTION, "1")
    stock.serve(model_name, 2)

    assert stock.rollback(model_name).version == 1


@pytest.mark.parametrize("alias", [PRODUCTION, STAGING])
def test_a_dead_move_to_files_that_were_not_evaluated_is_abandoned(
    any_stock: Stock, model_name: str, alias: str
):
    served_twice(any_stock, model_name)
    any_stock.rollback(model_name)
    journal = any_stock.journal(model_name)
    held = journal.read().version_with_alias(alias)
    wanted = replace(waiting_move(any_stock, model_name), alias=alias, from_version=held)
    journal.append(journal.read().head, wanted)
    replace_files(any_stock, model_name, 2)

    history = any_stock.registered(model_name).reconcile().history

    assert any_stock.aliases(model_name) == {PRODUCTION: 1}
    assert history.entries[-1].record == wanted
    assert history.entries[-1].end is not None
    assert not history.entries[-1].end.moved
    any_stock.require_agreement(model_name)


def waiting_move(stock: Stock, name: str) -> Move:
    """A move of production to version 2 whose process died a while ago, not written down yet."""
    now = moves.now().replace(microsecond=0)
    return Move(now - UNDER_WAY - timedelta(seconds=1), PRODUCTION, 1, 2, PROMOTION, "a dead process")


def test_a_dead_move_of_production_to_edited_files_is_abandoned(stock: Stock, model_name: str):
    stock.model(model_name, 1)
    stock.version(model_name, weights="other weights")
    stock.serve(model_name, 1)
    waiting(stock, model_name, ago=UNDER_WAY)
    stock.edit_files("other weights", "edited")

    stock.registered(model_name).reconcile()

    assert stock.aliases(model_name) == {PRODUCTION: 1}
    stock.require_agreement(model_name)


# The command line


def variables(home: Path, uri: str) -> dict[str, str]:
    return {"COLUMNS": "200", "LEDGERLINE_HOME": str(home), "MLFLOW_TRACKING_URI": uri}


def ledgerline(home: Path, uri: str, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["registry", *arguments], env=variables(home, uri))
    return result.exit_code, result.output


def test_the_history_of_a_recreated_model_names_the_earlier_journal(
    any_stock: Stock, model_name: str, tmp_path: Path
):
    served_twice(any_stock, model_name)
    recreate(any_stock, model_name)

    code, output = ledgerline(tmp_path / "home", any_stock.uri, "history", model_name)

    assert code == 0
    (aside,) = any_stock.registered(model_name).journals_of_earlier_models()
    expected = f"An earlier model had this name; its journal is the MLflow experiment '{aside}'."
    assert expected in " ".join(output.split())
    assert "promotion" not in output
    assert "changed outside" in output


def test_the_history_of_a_renamed_model_goes_along(any_stock: Stock, model_name: str, tmp_path: Path):
    served_twice(any_stock, model_name)
    any_stock.client.rename_registered_model(model_name, f"{model_name} renamed")

    code, output = ledgerline(tmp_path / "home", any_stock.uri, "history", f"{model_name} renamed")

    assert code == 0
    assert "production: 1 -> 2, promotion" in output
    code, output = ledgerline(tmp_path / "home", any_stock.uri, "history", model_name)
    assert code == 2
    assert "There is no registered model" in output


@pytest.mark.parametrize("store", ["database", "postgresql"])
def test_the_command_line_rolls_nothing_back_to_a_version_of_an_earlier_model(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
):
    stock = Stock(request.getfixturevalue(f"mlflow_{store}"), tmp_path / "artifacts")
    served_twice(stock, "flight_delay")
    recreate(stock, "flight_delay")

    # A separate process: the command sends the output of the run to a file, by its descriptors.
    ended = subprocess.run(
        [Path(sys.executable).parent / "ledgerline", "registry", "rollback", "flight_delay", "--to", "1"],
        env=os.environ | variables(tmp_path / "home", stock.uri),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert "Version 1 of flight_delay was never in production" in " ".join(ended.stdout.split()), ended
    assert stock.aliases("flight_delay") == {PRODUCTION: 2}
