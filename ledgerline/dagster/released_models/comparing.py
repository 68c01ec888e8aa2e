"""The step that compares staging with production. Its asset is in comparison.py."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ledgerline.cleaning.texts import cleaned
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models import comparison_tables, replayed_requests
from ledgerline.dagster.released_models.comparison import ComparisonConfig, EvaluatedVersion
from ledgerline.dagster.released_models.contenders import contender
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.evaluation_rows import keys_to_evaluate_on, partitions_of
from ledgerline.dagster.released_models.findings import (
    Findings,
    against_text,
    compared_versions,
    evidence_document,
)
from ledgerline.dagster.released_models.named_assets import declared_schema
from ledgerline.dagster.released_models.production import IN_PLACE, report_not_moved, staged_version
from ledgerline.dagster.request_log import RequestLogResource
from ledgerline.dagster.tracking import MLflowResource, TrainingRun
from ledgerline.evaluation import plots, report
from ledgerline.registry import evidence
from ledgerline.registry.evidence import Sealed
from ledgerline.registry.history import Evaluation
from ledgerline.registry.registry import Model
from ledgerline.registry.stages import PRODUCTION
from ledgerline.registry.versions import Version


def compare_versions(
    context: dg.AssetExecutionContext, model: ReleasedModel, config: ComparisonConfig
) -> Iterator[dg.Output[EvaluatedVersion]]:
    """Compare the version in staging with the one in production, and store the findings.

    Raises:
        PermanentFailure: The versions cannot be compared.
    """
    mlflow: MLflowResource = context.resources.mlflow
    registered = context.resources.registry.model(model.name)
    request_log: RequestLogResource = context.resources.request_log
    since = replayed_requests.moment_of(config.replay_since) if config.replay_since is not None else None
    staging, production = versions_to_compare(registered, model, config)
    if production is not None and production.number == staging.number:
        # Another run has promoted it in the meantime, so nothing is materialised.
        why = f"Version {staging.number} of {model.name} is in production already: nothing to compare."
        report_not_moved(context, staging.number, IN_PLACE, why)
        return
    keys = keys_to_evaluate_on(
        model, partitions_of(model, context.instance), staging, production, config.partition
    )
    against = against_text(model, production)
    where = f"{keys[0]} to {keys[-1]}" if keys else "the rows that are held out"
    context.log.info(f"Comparing version {staging.number} with {against} on {where}")
    incumbent = contender(registered, model, production) if production else None
    candidate = contender(registered, model, staging)
    # The replay comes first because the rest takes longer and needs no requests.
    now = datetime.now(UTC)
    replay = replayed_requests.replayed(request_log, candidate, incumbent, since, now) if since else None
    findings = replace(compared_versions(context, model, keys, candidate, incumbent), replay=replay)
    for ruling in findings.rulings:
        context.log.info(f"{'passed' if ruling.passed else 'FAILED'}: {ruling.rule}. {ruling.text}")

    now = datetime.now(UTC)
    document = cleaned(evidence_document(model, findings, context.run.run_id, now))  # before it is sealed
    sealed = evidence.seal(document)
    pictures = plots.pictures(findings.compared)
    lines = replayed_requests.lines_of(document["replay"]) if document["replay"] else None
    files = {f"{name}.png": picture for name, picture in pictures.items()}
    files["report.html"] = report.render(document, pictures, lines).encode()
    with mlflow.training_run(context, f"{model.name} {staging.number} vs {against}") as tracked:
        _track(tracked, model, findings, sealed, files)
    evaluation = Evaluation(
        at=now,
        version=staging.number,
        against=findings.against,
        passed=findings.passed,
        broken_rules=[ruling.rule for ruling in findings.rulings if not ruling.passed],
        evidence=sealed.sha256,
        evidence_run_id=tracked.run_id,
        by=f"Dagster run {context.run.run_id}",
        run_id=context.run.run_id,
    )
    entry = registered.record(evaluation)

    context.add_asset_metadata(
        {
            "decision": document["decision"],
            "version": staging.number,
            "against": against,
            "mlflow_run": mlflow.link(tracked),
            "gain": findings.compared.difference(model.kind.primary_metric).gain,
            "rows": findings.holdout.rows,
            "holdout_sha256": findings.holdout.sha256,
            "evidence_sha256": sealed.sha256,
            "journal_entry": entry,
            "comparison": comparison_tables.metrics_table(findings.compared),
            "gates": comparison_tables.gates_table(findings.rulings),
            **{f"{name}_plot": comparison_tables.as_markdown(png) for name, png in pictures.items()},
            **({"replay": replayed_requests.as_table(findings.replay)} if findings.replay else {}),
        }
    )
    yield dg.Output(
        EvaluatedVersion(
            version=staging.number,
            against=findings.against,
            rows=findings.holdout.rows,
            rulings=[asdict(ruling) for ruling in findings.rulings],
            passed=findings.passed,
            evidence_sha256=sealed.sha256,
            evidence_run_id=tracked.run_id,
            entry=entry,
            run_id=context.run.run_id,
            replay=document["replay"],
        )
    )


def versions_to_compare(
    registered: Model, model: ReleasedModel, config: ComparisonConfig
) -> tuple[Version, Version | None]:
    """Return the version that may be promoted, and the one it is compared with, if there is one.

    Raises:
        PermanentFailure: A version does not exist, or would be compared with itself.
    """
    staging = (
        registered.version(config.version)
        if config.version is not None
        else staged_version(registered, model)
    )
    production = (
        registered.version(config.against)
        if config.against is not None
        else registered.version_with_alias(PRODUCTION)
    )
    if config.against == staging.number:
        raise PermanentFailure(
            f"Version {staging.number} of {model.name} cannot be compared with itself.",
            "Name another version to compare it with.",
        )
    return staging, production


def _track(
    run: TrainingRun, model: ReleasedModel, findings: Findings, sealed: Sealed, files: Mapping[str, bytes]
) -> None:
    """Store the numbers, the sealed evidence and the report in an MLflow run."""
    numbers = {"staging/row_ms": findings.latency.staging_ms}
    if findings.latency.production_ms is not None:
        numbers["production/row_ms"] = findings.latency.production_ms
    for difference in findings.compared.differences:
        numbers[f"staging/{difference.metric}"] = difference.staging
        numbers[f"production/{difference.metric}"] = difference.production
        numbers[f"gain/{difference.metric}"] = difference.gain
        if difference.at_least is not None:
            numbers[f"gain_at_least/{difference.metric}"] = difference.at_least
    run.log_params(
        {"version": findings.staging.version.number, "against": findings.against, **_params(model)}
    )
    run.log_dataset(findings.holdout, "comparison", declared_schema(model.rows) or dg.TableSchema([]))
    run.log_metrics(numbers, None, findings.holdout)
    if findings.replay is not None:
        run.log_metrics(replayed_requests.metrics_of(findings.replay), None, None)
    run.log_files({evidence.FILE: sealed.content, **files})


def _params(model: ReleasedModel) -> dict[str, Any]:
    """Return the policy as parameters; the names of a gate's numbers begin with its rule."""
    settings = model.evaluated_by
    numbers = {
        f"{gate.rule}.{name}": value
        for gate in settings.gates
        for name, value in gate.as_dict().items()
        if name not in {"gate", "rule"}
    }
    return {"alpha": settings.alpha, "resamples": settings.resamples, "seed": settings.seed, **numbers}
