"""Comparing staging with production, and judging whether it may follow. Moving the alias: production.py."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets import comparison_report, plots, policies
from assets.contenders import Contender, baseline, contender, row_latencies, training_rows
from assets.delay_model import MODEL_NAME, describe, read_days, with_outcome
from assets.delay_model_evaluation import CARRIER_HOUR_RATE
from assets.features import FEATURES, FEATURES_SCHEMA, LABEL
from assets.holdout import holdout_days
from assets.production import DECISION, IN_PLACE
from assets.requests_replay import as_table, metrics_of, moment_of, replayed
from ledgerline.cleaning.texts import cleaned
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.request_log import RequestLogResource
from ledgerline.dagster.storage.io_managers import Records, Tables
from ledgerline.dagster.tracking import Dataset, MLflowResource, TrainingRun
from ledgerline.evaluation import comparison, policy, signatures, stability
from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.policy import Latencies, Policy, Ruling
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.ledger.ids import RUN_ID_TAG, trace_id
from ledgerline.registry import evidence
from ledgerline.registry.evidence import Sealed
from ledgerline.registry.history import Judgement
from ledgerline.registry.stages import PRODUCTION, STAGING
from ledgerline.registry.versions import (
    MONTH_TAG,
    SHA256_TAG,
    TRAINING_DATA_TAG,
    TRAINING_DAYS_TAG,
    Version,
)
from ledgerline.requests.replay import Replay

if TYPE_CHECKING:
    import pandas as pd

COMPARISON_ASSET = dg.AssetKey("staging_vs_production")

# What a version must prove before it may be promoted. The numbers are explained where they are declared.
POLICY = Policy()

# Flights of one day are late together, so days are drawn, and not flights.
DRAWN_TOGETHER = "date"
SLICED_BY = ("carrier", "origin")

RULES = {
    policy.BETTER: "With confidence 1 - alpha, staging is better than production by more than the margin.",
    policy.SLICES: "No carrier and no origin gets surely and noticeably worse answers.",
    policy.CALIBRATED: "What staging says comes true about as often as it says.",
    policy.FAST: "One prediction takes about as long as one of production.",
    policy.SIGNATURE: "Whoever calls production can call staging in the same way.",
}


class ComparisonConfig(dg.Config):
    """Which versions are compared, and on what."""

    version: int | None = Field(default=None, ge=1, description="The version. Default: the one in staging.")
    against: int | None = Field(
        default=None, ge=1, description="Compared with this version. Default: the one in production."
    )
    month: str | None = Field(
        default=None,
        description="On the flights of this month (2013-07-01). Default: the month that the version is for.",
    )
    replay_since: str | None = Field(
        default=None,
        description=(
            "Ask the version, too, what the service was asked from then on (2013-07-01T12:00:00; UTC unless "
            "it has a time zone), and report how its answers differ. Default: do not."
        ),
    )


@dataclass(frozen=True)
class JudgedVersion:
    """What came of a comparison.

    Attributes:
        version: The version that wants to be promoted.
        against: The version it was compared with; None: there was none, and a baseline stood in.
        rows: Flights it was judged on.
        rulings: One for each rule, as `ledgerline.evaluation.policy.Ruling`.
        passed: Whether every rule is kept.
        evidence_sha256: Seal of the evidence.
        evidence_run_id: The MLflow run that has it, and the report.
        entry: The entry in the journal of the model.
        run_id: The Dagster run that compared.
        replay: What it says to what was really asked, as `requests.replay.Replay`; None: it was not asked.
    """

    version: int
    against: int | None
    rows: int
    rulings: list[dict[str, Any]]
    passed: bool
    evidence_sha256: str
    evidence_run_id: str
    entry: int
    run_id: str
    replay: dict[str, Any] | None = None


@dataclass(frozen=True)
class Findings:
    """All that was found out about two versions.

    Attributes:
        staging: The version that wants to be promoted.
        production: The version it is compared with; None: a baseline stands in.
        holdout: The flights they were compared on.
        days: First day, last day and number of days of these.
        compared: The numbers.
        latency: How long one flight takes.
        training_psi: How far the flights they were trained on differ, by feature; None without production.
        rulings: What the policy says of it.
        replay: What staging says to what was really asked; None: it was not to be asked. No rule is about it.
    """

    staging: Contender
    production: Contender | None
    holdout: Dataset
    days: tuple[str, str, int]
    compared: Comparison
    latency: Latencies
    training_psi: Mapping[str, float] | None
    rulings: tuple[Ruling, ...]
    replay: Replay | None = None

    @property
    def passed(self) -> bool:
        """Whether every rule is kept."""
        return all(ruling.passed for ruling in self.rulings)

    @property
    def against(self) -> int | None:
        """The version it was compared with."""
        return self.production.version.number if self.production else None


@dg.asset(
    deps=["features", dg.AssetDep("delay_model_version", partition_mapping=dg.AllPartitionMapping())],
    io_manager_key="records",
    output_required=False,
    retry_policy=policies.RETRY,
    group_name="registry",
    kinds={"scikitlearn", "mlflow"},
    code_version="1",
)
def staging_vs_production(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    *,
    tables: dg.ResourceParam[Tables],
    mlflow: MLflowResource,
    registry: ModelRegistryResource,
    request_log: RequestLogResource,
) -> Iterator[dg.Output[JudgedVersion]]:
    """The version in staging beside the one in production, on flights that neither has seen.

    Both score the same flights, those of the month that the staging version is for. Every metric with a
    paired bootstrap interval of its difference, by carrier and origin with intervals that allow for looking
    at many, calibration, the time of a prediction, the size of the files, the signature, and how far the
    flights they were trained on differ. While there is no production, the share of late flights by carrier
    and hour stands in for it. If asked to (`replay_since`), staging also answers what the service was really
    asked, and how its answers differ is reported. The numbers are sealed, and written into the journal of
    the model, whatever they say. A version that another run has put into production meanwhile is not compared
    with itself: nothing is materialised then, and an observation says so.
    """
    since = moment_of(config.replay_since) if config.replay_since is not None else None
    staging, production = versions_to_compare(registry, config)
    if production is not None and production.number == staging.number:
        why = f"Version {staging.number} of {MODEL_NAME} is in production already: nothing to compare."
        context.log.warning(why)
        metadata = {DECISION: IN_PLACE, "version": staging.number}
        context.log_event(dg.AssetObservation(COMPARISON_ASSET, description=why, metadata=metadata))
        return
    against = f"version {production.number}" if production else f"the baseline {CARRIER_HOUR_RATE}"
    days = holdout_days(staging, production, config.month)
    context.log.info(f"Comparing version {staging.number} with {against} on {days[0]} to {days[-1]}")
    incumbent = contender(registry, production) if production else None
    candidate = contender(registry, staging)
    # Before the rest, which takes longer, and needs no requests.
    asked = replayed(request_log, candidate, incumbent, since, datetime.now(UTC)) if since else None
    found = replace(find_out(tables, days, candidate, incumbent, against), replay=asked)
    for ruling in found.rulings:
        context.log.info(f"{'kept' if ruling.passed else 'BROKEN'}: {ruling.rule}. {ruling.text}")

    now = datetime.now(UTC)
    document = cleaned(evidence_document(found, context.run.run_id, now))  # before it is sealed
    sealed = evidence.seal(document)
    pictures = {
        "gains": plots.gains(found.compared),
        "calibration": plots.two_calibrations(found.compared),
        "slices": plots.slice_gains(found.compared),
    }
    report = comparison_report.render(document, pictures)
    with mlflow.training_run(context, f"{MODEL_NAME} {staging.number} vs {against}") as tracked:
        track(tracked, found, sealed, report, pictures)
    judgement = judgement_of(found, sealed, tracked.run_id, context.run.run_id, now)
    entry = registry.record(MODEL_NAME, judgement)

    context.add_asset_metadata(
        {
            "decision": document["decision"],
            "version": staging.number,
            "against": against,
            "mlflow_run": mlflow.link(tracked),
            "gain": found.compared.difference(POLICY.primary_metric).gain,
            "flights": found.holdout.rows,
            "holdout_sha256": found.holdout.sha256,
            "evidence_sha256": sealed.sha256,
            "journal_entry": entry,
            "comparison": comparison_report.metrics_table(found.compared),
            "rules": comparison_report.rules_table(found.rulings),
            **{f"{name}_plot": plots.as_markdown(picture) for name, picture in pictures.items()},
            **({"replay": as_table(found.replay)} if found.replay else {}),
        }
    )
    judged = JudgedVersion(
        version=staging.number,
        against=found.against,
        rows=found.holdout.rows,
        rulings=[asdict(ruling) for ruling in found.rulings],
        passed=found.passed,
        evidence_sha256=sealed.sha256,
        evidence_run_id=tracked.run_id,
        entry=entry,
        run_id=context.run.run_id,
        replay=document["replay"],
    )
    yield dg.Output(judged)


@dg.multi_asset_check(
    name="staging_vs_production_rules",
    specs=[
        dg.AssetCheckSpec(rule, asset=COMPARISON_ASSET, description=description)
        for rule, description in RULES.items()
    ],
    can_subset=True,
)
def rules_of_promotion(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> Iterator[dg.AssetCheckResult]:
    """Check each rule of the policy, one check a rule; a broken rule keeps the version out of production.

    It does so by the sealed evidence, which a promotion reads itself. The checks only show it: blocking ones
    would have Dagster call the run and `production_flight_delay` failed, which is neither.
    """
    judged = records.read(COMPARISON_ASSET, None, JudgedVersion)
    chosen = {key.name for key in context.selected_asset_check_keys}
    for ruling in (Ruling(**found) for found in judged.rulings):
        if ruling.rule in chosen:
            numbers = {"value": ruling.value, "threshold": ruling.threshold}
            yield dg.AssetCheckResult(
                passed=ruling.passed,
                severity=dg.AssetCheckSeverity.WARN,
                check_name=ruling.rule,
                description=ruling.text,
                metadata={"version": judged.version} | {k: v for k, v in numbers.items() if v is not None},
            )


def versions_to_compare(
    registry: ModelRegistryResource, config: ComparisonConfig
) -> tuple[Version, Version | None]:
    """The version that wants to be promoted, and the one it is compared with, if there is one.

    Raises:
        PermanentFailure: There is no such version, or one is named that is to be compared with itself.
    """
    staging = (
        registry.version(MODEL_NAME, config.version)
        if config.version is not None
        else registry.version_with_alias(MODEL_NAME, STAGING)
    )
    if staging is None:
        raise PermanentFailure(
            f"No version of {MODEL_NAME} carries the alias {STAGING}.",
            "Name a version, or train one with the job train_delay_model.",
        )
    production = (
        registry.version(MODEL_NAME, config.against)
        if config.against is not None
        else registry.version_with_alias(MODEL_NAME, PRODUCTION)
    )
    if config.against is not None and config.against == staging.number:
        raise PermanentFailure(
            f"Version {staging.number} of {MODEL_NAME} cannot be compared with itself.",
            "Name another version to compare it with.",
        )
    return staging, production


def find_out(
    tables: Tables, days: list[str], staging: Contender, production: Contender | None, against: str
) -> Findings:
    """Score the flights of some days with both versions, and compare what they say.

    Args:
        tables: Where `features` is.
        days: Days that neither was trained on.
        staging: The version that wants to be promoted.
        production: The version it is compared with; None: the baseline.
        against: What it is compared with, as a text names it.

    Raises:
        PermanentFailure: Days are missing, a model cannot score them, or they cannot tell.
    """
    purpose = f"{MODEL_NAME} version {staging.version.number} is compared on"
    rows = with_outcome(read_days(tables, days, purpose))
    learned_from = training_rows(tables, staging.version)
    compared = _compared(
        rows,
        staging.probability(rows),
        production.probability(rows) if production else baseline(learned_from, rows),
        against,
    )
    latency = row_latencies(staging, production, rows)
    differing = signatures.problems(staging.signature, production.signature if production else None)
    return Findings(
        staging=staging,
        production=production,
        holdout=describe(rows, tables, days),
        days=(days[0], days[-1], len(days)),
        compared=compared,
        latency=latency,
        training_psi=_training_psi(tables, learned_from, production) if production else None,
        rulings=policy.judge(POLICY, compared, latency, differing),
    )


def evidence_document(found: Findings, run_id: str, now: datetime) -> dict[str, Any]:
    """What is sealed: all that the decision rests on."""
    staging, production = found.staging, found.production
    return {
        "model": MODEL_NAME,
        "version": staging.version.number,
        "version_sha256": staging.version.tags.get(SHA256_TAG),
        "against": found.against,
        "against_sha256": production.version.tags.get(SHA256_TAG) if production else None,
        "holdout": asdict(found.holdout)
        | dict(zip(("first_day", "last_day", "days"), found.days, strict=True)),
        "training_data": {
            str(one.version.number): _provenance(one.version) for one in (staging, production) if one
        },
        "policy": asdict(POLICY),
        "comparison": found.compared.as_dict(),
        "latency": asdict(found.latency),
        "artifact_bytes": {"staging": staging.bytes, "production": production.bytes if production else None},
        "training_psi": found.training_psi,
        "replay": found.replay.as_dict() if found.replay else None,
        "rulings": [asdict(ruling) for ruling in found.rulings],
        "decision": evidence.PASSED if found.passed else evidence.REFUSED,
        "by": f"Dagster run {run_id}",
        "at": now.isoformat(timespec="milliseconds"),
        RUN_ID_TAG: run_id,
        "trace_id": f"{trace_id(run_id):032x}",
    }


def track(
    run: TrainingRun, found: Findings, sealed: Sealed, report: str, pictures: Mapping[str, bytes]
) -> None:
    """Keep the numbers, the sealed evidence and the report in an MLflow run."""
    numbers = {"staging/row_ms": found.latency.staging_ms}
    if found.latency.production_ms is not None:
        numbers["production/row_ms"] = found.latency.production_ms
    for difference in found.compared.differences:
        numbers[f"staging/{difference.metric}"] = difference.staging
        numbers[f"production/{difference.metric}"] = difference.production
        numbers[f"gain/{difference.metric}"] = difference.gain
        if difference.at_least is not None:
            numbers[f"gain_at_least/{difference.metric}"] = difference.at_least
    run.log_params({"version": found.staging.version.number, "against": found.against, **asdict(POLICY)})
    run.log_dataset(found.holdout, "comparison", FEATURES_SCHEMA)
    run.log_metrics(numbers, None, found.holdout)
    if found.replay is not None:
        run.log_metrics(metrics_of(found.replay), None, None)
    run.log_files(
        {evidence.FILE: sealed.content, "report.html": report.encode()}
        | {f"{name}.png": picture for name, picture in pictures.items()}
    )


def judgement_of(
    found: Findings, sealed: Sealed, evidence_run_id: str, run_id: str, now: datetime
) -> Judgement:
    """What is written into the journal of the model."""
    return Judgement(
        at=now,
        version=found.staging.version.number,
        against=found.against,
        passed=found.passed,
        broken_rules=[ruling.rule for ruling in found.rulings if not ruling.passed],
        evidence=sealed.sha256,
        evidence_run_id=evidence_run_id,
        by=f"Dagster run {run_id}",
        run_id=run_id,
    )


def _compared(
    rows: "pd.DataFrame", staging: "pd.Series", production: "pd.Series", against: str
) -> Comparison:
    try:
        return comparison.compare(
            rows[LABEL].astype(bool),
            staging,
            production,
            clusters=rows[DRAWN_TOGETHER],
            slices={column: rows[column] for column in SLICED_BY},
            alpha=POLICY.alpha,
            resamples=POLICY.resamples,
            seed=POLICY.seed,
            production_name=against,
        )
    except ComparisonError as error:
        raise PermanentFailure(str(error), "Compare on another month.") from error


def _training_psi(tables: Tables, learned_from: "pd.DataFrame", production: Contender) -> dict[str, float]:
    table = stability.psi_table(training_rows(tables, production.version), learned_from, FEATURES)
    return {str(row["feature"]): float(row["psi"]) for row in table.to_dict("records")}


def _provenance(version: Version) -> dict[str, str]:
    """What a version says of where it comes from; "missing" where somebody registered it by hand."""
    names = (MONTH_TAG, TRAINING_DAYS_TAG, TRAINING_DATA_TAG, RUN_ID_TAG)
    tags = {name: version.tags.get(name, "missing") for name in names}
    return tags | {"mlflow_run_id": version.run_id or "missing"}
