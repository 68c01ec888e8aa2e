"""Tests `ledgerline registry` for models that the definitions release, and for others."""

from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.main import app
from ledgerline.cli.released import ReleasedModelError, partition_of_versions, released_model, the_only_one
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.registry.stages import PRODUCTION
from ledgerline.settings.project import Project
from ledgerline.testing.registry_stock import Stock
from tests.cli.bakeries import FOLDER

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2023-01-01", end_date="2024-01-01")
BREAD = ReleaseNames.of("bread", dg.AssetKey("bread_version"))
CAKE = ReleaseNames.of("cake", dg.AssetKey("cake_version"))


@pytest.fixture
def stock(mlflow_database: str, tmp_path: Path) -> Stock:
    return Stock(mlflow_database, tmp_path / "artifacts")


def ledgerline(stock: Stock, tmp_path: Path, *arguments: str) -> Result:
    environment = {
        "LEDGERLINE_PROJECT": str(FOLDER),
        "LEDGERLINE_HOME": str(tmp_path / "home"),
        "MLFLOW_TRACKING_URI": stock.uri,
        "COLUMNS": "200",
    }
    return CliRunner().invoke(app, ["registry", *arguments], env=environment)


def releasing(*models: ReleaseNames) -> LoadedProject:
    """Return a project whose definitions have the assets of these models."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
    for names in models:
        partitions = MONTHS if names is BREAD else None
        assets += [
            dg.AssetSpec(names.versions, partitions_def=partitions),
            dg.AssetSpec(names.production, metadata=names.as_metadata()),
        ]
    return LoadedProject(Project(Path("/nowhere"), "bakery"), dg.Definitions(assets=assets))


def test_the_only_released_model_is_the_one_that_is_meant() -> None:
    assert released_model(releasing(CAKE), None) == CAKE
    assert released_model(releasing(BREAD, CAKE), "cake") == CAKE


def test_one_of_several_released_models_must_be_named() -> None:
    with pytest.raises(ReleasedModelError) as caught:
        released_model(releasing(CAKE, BREAD), None)
    assert str(caught.value) == "The definitions release several models. Name one: bread, cake."


def test_without_a_released_model_one_must_be_named() -> None:
    with pytest.raises(ReleasedModelError, match=r"bakery releases no model\. Name a registered model"):
        the_only_one(releasing())


def test_a_model_that_is_not_released_is_refused_with_how_to_declare_it() -> None:
    with pytest.raises(ReleasedModelError) as caught:
        released_model(releasing(BREAD), "pie")
    assert str(caught.value) == (
        "No job compares or promotes 'pie', because the definitions do not release it. They release bread. "
        "Declare it as a ReleasedModel, and merge released(it) with the definitions in bakery. The commands "
        "registry show, history, approve and rollback need no job."
    )


def test_a_partition_is_one_of_the_asset_that_registers_versions() -> None:
    loaded = releasing(BREAD, CAKE)
    assert partition_of_versions(loaded, BREAD, "2023-07") == "2023-07-01"
    with pytest.raises(ReleasedModelError, match="Versions of cake have no partitions"):
        partition_of_versions(loaded, CAKE, "2023-07")


@pytest.mark.parametrize("command", ["compare", "promote", "replay"])
def test_a_command_that_needs_a_job_names_how_to_get_one(command: str, stock: Stock, tmp_path: Path) -> None:
    stock.model("pie")
    refused = ledgerline(stock, tmp_path, command, "pie")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(
        "No job compares or promotes 'pie', because the definitions do not release"
    )
    assert "Declare it as a ReleasedModel" in refused.stderr
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    "command", ["compare", "promote", "replay", "show", "history", "reconcile", "rollback"]
)
def test_a_model_must_be_named_where_none_is_released(command: str, stock: Stock, tmp_path: Path) -> None:
    refused = ledgerline(stock, tmp_path, command)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("bakery_definitions releases no model. Name a registered model;")


def test_a_model_without_a_job_is_approved_and_rolled_back_by_a_person(stock: Stock, tmp_path: Path) -> None:
    stock.model("pie", 2)
    stock.evaluate("pie", 1)
    approved = ledgerline(
        stock, tmp_path, "approve", "pie", "--version", "1", "--by", "Ada", "--reason", "it is good"
    )
    assert approved.exit_code == 0, approved.output
    assert "pie version 1 is approved by Ada" in approved.output
    assert "No job promotes it. Declare it as a ReleasedModel" in approved.output
    stock.promote("pie", 1)
    stock.serve("pie", 2)

    back = ledgerline(stock, tmp_path, "rollback", "pie", "--by", "Ada", "--reason", "it burns")
    assert back.exit_code == 0, back.output
    assert back.output == "production of pie: version 1\n"
    assert stock.client.get_model_version_by_alias("pie", PRODUCTION).version in (1, "1")
    last = stock.history("pie").moves(PRODUCTION)[-1][1]
    assert (last.cause, last.by, last.reason, last.run_id) == ("rollback", "Ada", "it burns", "")

    history = ledgerline(stock, tmp_path, "history", "pie")
    assert "version 1 approved" in history.output
    assert "production: 2 -> 1, rollback" in history.output
    assert "production" in ledgerline(stock, tmp_path, "show", "pie").output


def test_there_must_be_something_to_go_back_to(stock: Stock, tmp_path: Path) -> None:
    stock.model("pie")
    refused = ledgerline(stock, tmp_path, "rollback", "pie")
    assert refused.exit_code == 2
    assert "No version of pie was in production before no version." in refused.stderr
    unknown = ledgerline(stock, tmp_path, "rollback", "tart")
    assert unknown.exit_code == 2
    assert "There is no registered model 'tart'" in unknown.stderr


def test_an_external_change_is_reported_by_queries_and_recorded_by_reconcile(
    stock: Stock, tmp_path: Path
) -> None:
    stock.model("pie", 2)
    stock.serve("pie", 1)
    stock.client.set_registered_model_alias("pie", PRODUCTION, "2")
    advice = "Aliases were changed outside the journal; `ledgerline registry reconcile pie` records it."
    for query in ("history", "show"):
        result = ledgerline(stock, tmp_path, query, "pie")
        assert "production is version 2, the journal says version 1." in result.output
        assert advice in result.output
    assert len(stock.history("pie").moves(PRODUCTION)) == 1

    recorded = ledgerline(stock, tmp_path, "reconcile", "pie")
    assert recorded.output == "Recorded as entry 3: production: 1 -> 2, changed outside\n"
    again = ledgerline(stock, tmp_path, "reconcile", "pie")
    assert (again.exit_code, again.output) == (
        0,
        "Nothing differed: the aliases of pie match its journal.\n",
    )
    assert "outside the journal" not in ledgerline(stock, tmp_path, "history", "pie").output


@pytest.mark.parametrize("command", ["show", "history", "reconcile"])
def test_a_command_with_a_named_model_loads_no_definitions(
    command: str, stock: Stock, tmp_path: Path
) -> None:
    stock.model("pie")
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[tool.ledgerline]\ndefinitions = "broken_definitions"\n')
    (project / "broken_definitions.py").write_text("raise RuntimeError('loaded')\n")
    environment = {
        "LEDGERLINE_PROJECT": str(project),
        "LEDGERLINE_HOME": str(tmp_path / "home"),
        "MLFLOW_TRACKING_URI": stock.uri,
    }

    named = CliRunner().invoke(app, ["registry", command, "pie"], env=environment)
    assert (named.exit_code, named.stderr) == (0, "")
    unnamed = CliRunner().invoke(app, ["registry", command], env=environment)
    assert unnamed.exit_code == 2
    assert "loaded" in unnamed.stderr
