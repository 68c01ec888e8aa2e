"""The findings about two versions, and the document that is sealed as evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.contenders import Contender, row_latencies
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.evaluation_rows import (
    described,
    partitions_of,
    read_evaluation_rows,
    read_training_rows,
)
from ledgerline.dagster.tracking import Dataset
from ledgerline.evaluation import comparison, policy, signatures, stability
from ledgerline.evaluation import rulings as rulings_of
from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.rulings import Latencies, Ruling
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.ledger.ids import RUN_ID_TAG, trace_id
from ledgerline.registry import evidence
from ledgerline.registry.provenance import EVALUATED_ON_TAG, PARTITION_TAG, TRAINED_ON_TAG
from ledgerline.registry.versions import (
    MONTH_TAG,
    SHA256_TAG,
    TRAINING_DATA_TAG,
    TRAINING_DAYS_TAG,
    Version,
)
from ledgerline.requests.replay import Replay

PROVENANCE_TAGS = (
    PARTITION_TAG,
    MONTH_TAG,
    TRAINED_ON_TAG,
    TRAINING_DAYS_TAG,
    EVALUATED_ON_TAG,
    TRAINING_DATA_TAG,
    RUN_ID_TAG,
)


@dataclass(frozen=True)
class Findings:
    """The findings about two versions.

    Attributes:
        staging: Version that may be promoted.
        production: Version that it is compared with; None if a baseline takes its place.
        holdout: Rows that they were compared on.
        keys: Partitions of these rows; empty if the rows have none.
        training_psi: Population stability index of their training rows, by feature; None without production.
        replay: Replay of logged requests; None if none was requested. No gate evaluates it.
    """

    staging: Contender
    production: Contender | None
    holdout: Dataset
    keys: Sequence[str]
    compared: Comparison
    latency: Latencies
    training_psi: Mapping[str, float] | None
    rulings: tuple[Ruling, ...]
    replay: Replay | None = None

    @property
    def passed(self) -> bool:
        """True if the version passes every gate."""
        return all(ruling.passed for ruling in self.rulings)

    @property
    def against(self) -> int | None:
        """The number of the version that it was compared with; None for a baseline."""
        return self.production.version.number if self.production else None


def compared_versions(
    context: dg.AssetExecutionContext,
    model: ReleasedModel,
    keys: Sequence[str],
    staging: Contender,
    production: Contender | None,
) -> Findings:
    """Predict rows of these partitions with both versions, and compare the predictions.

    Raises:
        PermanentFailure: Rows are missing or too few, or a model cannot predict them.
    """
    partitions = partitions_of(model, context.instance)
    rows = read_evaluation_rows(context, model, keys, staging.version)
    trained_on = read_training_rows(context, model, partitions, staging.version)
    compared = _compared(model, rows, trained_on, staging, production)
    latency = row_latencies(staging, production, rows)
    differing = signatures.problems(staging.signature, production.signature if production else None)
    training_psi = None
    if production is not None and model.features:
        before = read_training_rows(context, model, partitions, production.version)
        training_psi = stability.psi_by_column(before, trained_on, model.features)
    return Findings(
        staging=staging,
        production=production,
        holdout=described(context, model, keys, rows),
        keys=keys,
        compared=compared,
        latency=latency,
        training_psi=training_psi,
        rulings=policy.evaluate(model.evaluated_by, rulings_of.Findings(compared, latency, tuple(differing))),
    )


def against_text(model: ReleasedModel, production: Version | None) -> str:
    """Return the name of the version or baseline that staging is compared with, for a text."""
    return f"version {production.number}" if production else f"the baseline {model.stand_in.name}"


def evidence_document(model: ReleasedModel, findings: Findings, run_id: str, now: datetime) -> dict[str, Any]:
    """Return the document that is sealed, with everything that the decision is based on."""
    staging, production = findings.staging, findings.production
    return {
        "model": model.name,
        "version": staging.version.number,
        "version_sha256": staging.version.tags.get(SHA256_TAG),
        "against": findings.against,
        "against_sha256": production.version.tags.get(SHA256_TAG) if production else None,
        "holdout": asdict(findings.holdout)
        | {
            "asset": model.rows_key.to_user_string(),
            "first_partition": findings.keys[0] if findings.keys else None,
            "last_partition": findings.keys[-1] if findings.keys else None,
            "partitions": len(findings.keys),
            "share": model.holdout.as_text() if model.holdout is not None else None,
        },
        "training_data": {
            str(one.version.number): _provenance(one.version) for one in (staging, production) if one
        },
        "policy": model.evaluated_by.as_dict(),
        "comparison": findings.compared.as_dict(),
        "latency": asdict(findings.latency),
        "artifact_bytes": {"staging": staging.bytes, "production": production.bytes if production else None},
        "training_psi": findings.training_psi,
        "replay": findings.replay.as_dict() if findings.replay else None,
        "rulings": [asdict(ruling) for ruling in findings.rulings],
        "decision": evidence.PASSED if findings.passed else evidence.REFUSED,
        "by": f"Dagster run {run_id}",
        "at": now.isoformat(timespec="milliseconds"),
        RUN_ID_TAG: run_id,
        "trace_id": f"{trace_id(run_id):032x}",
    }


def _compared(
    model: ReleasedModel,
    rows: pd.DataFrame,
    trained_on: pd.DataFrame,
    staging: Contender,
    production: Contender | None,
) -> Comparison:
    settings = model.evaluated_by
    try:
        return comparison.compare(
            model.kind,
            rows[model.outcome],
            staging.answers(rows),
            production.answers(rows) if production else model.stand_in.answer(trained_on, rows),
            clusters=model.clusters_of(rows),
            slices={column: rows[column] for column in model.slices},
            metrics=(*settings.metrics(model.kind), *model.metrics),
            slice_metric=settings.slice_metric(model.kind),
            alpha=settings.alpha,
            resamples=settings.resamples,
            seed=settings.seed,
            production_name=against_text(model, production.version if production else None),
        )
    except ComparisonError as error:
        remedy = "Compare on other rows." if model.holdout else "Compare on another partition."
        raise PermanentFailure(str(error), remedy) from error


def _provenance(version: Version) -> dict[str, str]:
    """Return the recorded origin of a version, which is empty if it was registered manually."""
    tags = {name: version.tags[name] for name in PROVENANCE_TAGS if version.tags.get(name)}
    return tags | {"mlflow_run_id": version.run_id or "missing"}
