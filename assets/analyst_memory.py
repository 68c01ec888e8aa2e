"""Writes the project's reports to the analyst's memory. Memory itself is in ledgerline/agent/memory.py."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import policies
from assets.analyst_questions import GROUP
from assets.delay_model import MODEL_NAME
from ledgerline.dagster.agent import AgentResource
from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger.ids import RUN_ID_FIELD
from ledgerline.registry.history import Evaluation

if TYPE_CHECKING:
    from ledgerline.agent.vector_store import Entry

MAX_RUNS = 200


@dg.asset(
    deps=["comparison_flight_delay"],
    retry_policy=policies.RETRY,
    group_name=GROUP,
    kinds={"lancedb"},
    code_version="1",
)
def analyst_memory(
    context: dg.AssetExecutionContext,
    agent: AgentResource,
    registry: ModelRegistryResource,
    mlflow: MLflowResource,
) -> dg.MaterializeResult:
    """Entries about the project in the analyst's memory: comparisons of models, and lineage of tables.

    There is one entry for each evaluation in the registry's journal, with the ruling of each gate, and one
    for each asset in the lineage documents of the latest 200 runs. Existing entries, such as answers to
    questions, are not changed. `ledgerline memory` lists and deletes entries.
    """
    memory = agent.open_memory()
    if memory is None:
        raise PermanentFailure(
            "The agent has no memory, because LEDGERLINE_MEMORY is off.", "Set it to a folder."
        )
    with permanent_failures():
        known = {entry.key for entry in memory.entries()}
        reports = [*_comparisons(registry), *_lineage(mlflow)]
        new = {entry.key: entry for entry in reports if entry.key not in known}
        memory.remember(list(new.values()))
    context.log.info(f"{len(new)} of {len(reports)} reports are new.")
    return dg.MaterializeResult(metadata={"entries": memory.count, "new": len(new), "reports": len(reports)})


def _comparisons(registry: ModelRegistryResource) -> "Iterator[Entry]":
    model = registry.model(MODEL_NAME)
    for evaluation in model.history().evaluations():
        yield comparison_entry(evaluation, model.evidence(evaluation))


def _lineage(mlflow: MLflowResource) -> "Iterator[Entry]":
    from ledgerline.dagster.lineage_documents import lineage_documents

    for document in lineage_documents(mlflow, MAX_RUNS):
        yield lineage_entry(document)


def comparison_entry(evaluation: Evaluation, evidence: Mapping[str, Any] | None) -> "Entry":
    """Return the memory's entry for an evaluation.

    Args:
        evaluation: Entry of the journal.
        evidence: Evidence of the evaluation; None if it no longer exists.
    """
    from ledgerline.agent.vector_store import Entry

    against = "the baseline" if evaluation.against is None else f"version {evaluation.against} in production"
    verdict = "it kept every rule" if evaluation.passed else f"it broke {', '.join(evaluation.broken_rules)}"
    subject = f"version {evaluation.version} of {MODEL_NAME} was compared with {against}"
    rulings = [ruling["text"] for ruling in (evidence or {}).get("rulings", ())]
    lines = [f"Comparison of models on {evaluation.at:%Y-%m-%d}: {subject}, and {verdict}.", *rulings]
    return Entry(
        key=f"comparison:{evaluation.evidence[:16]}",
        kind="report",
        text="\n".join(lines),
        source=f"MLflow run {evaluation.evidence_run_id}",
        created=evaluation.at,
    )


def lineage_entry(document: Mapping[str, Any]) -> "Entry":
    """Return the memory's entry for the lineage of an asset in one run."""
    from ledgerline.agent.vector_store import Entry

    output = document["outputs"][0]["name"]
    run = document["run"]["facets"]["ledgerline_run"]
    inputs = [dataset["name"] for dataset in document.get("inputs", ())]
    partition = f", partition {run['partition']}," if run.get("partition") else ""
    made_of = f"from {', '.join(inputs)}" if inputs else "from no other table"
    when = datetime.fromisoformat(document["eventTime"])
    text = (
        f"Lineage: {output}{partition} was made by step {run['step']} of job {run['job']} on "
        f"{when:%Y-%m-%d}, {made_of}."
    )
    return Entry(
        key=f"lineage:{run[RUN_ID_FIELD][:8]}:{output}",
        kind="report",
        text=text,
        source=f"Dagster run {run[RUN_ID_FIELD]}",
        created=when,
    )
