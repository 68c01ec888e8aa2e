"""Tests that each name of a Dagster run's id outside of Dagster is written once in the product."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attr

from ledgerline.ledger import ids
from ledgerline.lineage.facets import LedgerlineRunFacet
from ledgerline.mlflow_runs import tags as mlflow_tags
from ledgerline.traces import attributes

ROOT = Path(__file__).parents[2]
PACKAGES = ("assets", "ledgerline", "pipelines", "resources")
SPELLING = re.compile(r"dagster[^a-z]?run[^a-z]?id(?![a-z])", re.IGNORECASE)


def spellings() -> Iterator[tuple[str, str]]:
    """The file and the text of each string that has a name of the id in it."""
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(module.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from (
                        (str(module.relative_to(ROOT)), found[0]) for found in SPELLING.finditer(node.value)
                    )


def test_each_name_of_a_runs_id_is_written_in_one_place() -> None:
    assert sorted(spellings()) == [
        ("ledgerline/ledger/ids.py", ids.RUN_ID_ATTRIBUTE),
        ("ledgerline/ledger/ids.py", ids.RUN_ID_TAG),
        ("ledgerline/ledger/ids.py", ids.RUN_ID_FIELD),
        ("ledgerline/mlflow_runs/tags.py", mlflow_tags.DAGSTER_MLFLOW_RUN_ID),
    ]


def test_the_names_are_those_that_stored_runs_versions_and_documents_have() -> None:
    assert attributes.RUN_ID == "dagster.run.id"
    assert mlflow_tags.RUN_ID == ids.RUN_ID_TAG == "dagster.run_id"
    assert mlflow_tags.DAGSTER_MLFLOW_RUN_ID == ids.RUN_ID_FIELD == "dagster_run_id"
    assert ids.RUN_ID_FIELD in {field.name for field in attr.fields(LedgerlineRunFacet)}
