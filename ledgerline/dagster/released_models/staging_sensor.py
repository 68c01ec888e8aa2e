"""The sensor that starts comparisons and promotions, for versions in staging and after approvals.

production_sensor.py starts the runs that follow a move of production.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.jobs import ReleaseJobs
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.released_models.polls import (
    INTERVAL_SECONDS,
    NOT_YET,
    NOTHING_NEW,
    Seen,
    poll,
    run_key,
)
from ledgerline.registry.evidence import APPROVED_BY_TAG
from ledgerline.registry.history import Approval, Evaluation, History
from ledgerline.registry.moves import UnderWayError
from ledgerline.registry.promotion import Mode
from ledgerline.registry.stages import PRODUCTION, STAGING

# If a run takes longer, its process has died, whatever its status is; a killed command line leaves such runs.
RELEASED_WITHIN = timedelta(minutes=15)

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,  # status of the command line's runs before they start
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class SeenStaging(Seen):
    """The state of `staging_changed`.

    Attributes:
        released: Last entry up to which runs were requested for versions in staging; None before the first
            poll.
        approved: Last entry up to which runs were requested for approvals.
        waiting: Versions that wait for approval, with their evidence.
        requested: Evidence that was approved by a tag, and whose run was requested.
    """

    released: int | None = None
    approved: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)

    @classmethod
    def nothing_of_a_new_model(cls) -> Self:
        """Return the state for a new model: a run is requested for each version in staging."""
        return cls(released=0)


def staging_sensor(model: ReleasedModel, jobs: ReleaseJobs) -> dg.SensorDefinition:
    """Make the sensor that starts runs for versions that are in staging or were approved."""
    names = model.names

    @dg.sensor(
        name=names.sensor("staging_changed"),
        jobs=[jobs.release, jobs.promote],
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"When a version of {model.name} is in staging: compares it with production, and promotes it if "
            "it passes every gate and, where required, after a person's approval. It releases one version at "
            "a time."
        ),
    )
    def staging_changed(
        context: dg.SensorEvaluationContext, registry: ModelRegistryResource
    ) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, names, registry)

    return staging_changed


def _tick(
    context: dg.SensorEvaluationContext, names: ReleaseNames, registry: ModelRegistryResource
) -> dg.SensorResult | dg.SkipReason:
    polled = poll(context, registry, names.model, SeenStaging)
    if polled is None:
        return dg.SkipReason(NOT_YET)
    seen, current = polled
    approvers = _approvers(registry, names.model, seen.waiting)
    if not approvers and not seen.is_to_read(current):
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=seen.after(current).cursor)
    try:
        history = registry.model(names.model).reconcile(seen.last_poll(current)).history
    except UnderWayError as error:
        return dg.SkipReason(clean(str(error)))

    before, seen = seen, seen.within(history)
    approvers = approvers if seen is before else {}
    promotions = _approved(names, history, seen.approved) | _tagged(names, history, approvers)
    releases = _to_release(history, seen.released)
    requests = list(promotions.values())
    # One at a time: the next version is compared with the one that this run puts into production.
    if releases and not _is_releasing(context.instance, names):
        requests.append(_release(names, history, *releases.pop(0)))
    waiting = _waiting(history) if registry.promotion == Mode.approved else {}
    requested = {*seen.requested, *(seen.waiting[version] for version in approvers)} & set(waiting.values())
    released = releases[0][0] - 1 if releases else history.head
    after = replace(
        seen.after_reading(current, history.head, has_more=bool(releases)),
        seal=history.seal,
        released=released,
        approved=history.head,
        waiting={version: evidence for version, evidence in waiting.items() if evidence not in requested},
        requested=sorted(requested),
    )
    versions = ", ".join(str(version) for _, version in releases)
    reason = f"Versions to release after the run in progress: {versions}." if releases else NOTHING_NEW
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else reason, cursor=after.cursor
    )


def _to_release(history: History, released: int | None) -> list[tuple[int, int]]:
    """Return versions that were staged after this entry and not evaluated since; for None, the current one.

    Returns:
        Entry and version, the earliest first.
    """
    staged = {move.to_version: entry.number for entry, move, _ in history.moves(STAGING)}
    if released is None:
        current = history.version_with_alias(STAGING)
        staged = {current: staged[current]} if current is not None else {}
    evaluated = {e.record.version: e.number for e in history.entries if isinstance(e.record, Evaluation)}
    return sorted(
        (number, version)
        for version, number in staged.items()
        if version is not None
        and number > (released or 0)
        and number > evaluated.get(version, 0)
        and version != history.version_with_alias(PRODUCTION)
    )


def _release(names: ReleaseNames, history: History, number: int, version: int) -> dg.RunRequest:
    steps = (names.comparison_op, names.production_op)
    return dg.RunRequest(
        run_key=run_key(names.model, history.entries[number - 1]),
        job_name=names.release_job,
        run_config={"ops": {step: {"config": {"version": version}} for step in steps}},
    )


def _is_releasing(instance: dg.DagsterInstance, names: ReleaseNames) -> bool:
    """Return whether a run of the job is in progress."""
    since = datetime.now(UTC) - RELEASED_WITHIN
    recent = dg.RunsFilter(job_name=names.release_job, statuses=UNDER_WAY, created_after=since)
    return bool(instance.get_run_ids(recent, limit=1))


def _approved(names: ReleaseNames, history: History, approved: int) -> dict[str, dg.RunRequest]:
    """Return runs for approvals after this entry that are still open, by run key.

    A move of production closes an approval: the approval was carried out, or was about another comparison.
    """
    requests = {}
    for entry in history.entries:
        approval = entry.record
        if isinstance(approval, Approval) and entry.number > max(approved, _last_move(history)):
            evaluation = history.evaluation(approval.version)
            if evaluation is not None and evaluation.evidence == approval.evidence:
                request = _promotion(names, history, evaluation, approval.by, approval.reason)
                requests[request.run_key or ""] = request
    return requests


def _tagged(names: ReleaseNames, history: History, approvers: Mapping[str, str]) -> dict[str, dg.RunRequest]:
    """Return runs for approvals by a tag in MLflow, by run key, as for approvals in the journal."""
    reason = f"tag {APPROVED_BY_TAG} in MLflow"
    requests = {}
    for version, evidence in _waiting(history).items():
        evaluation = history.evaluation(int(version))
        if version in approvers and evaluation is not None and evaluation.evidence == evidence:
            request = _promotion(names, history, evaluation, approvers[version], reason)
            requests[request.run_key or ""] = request
    return requests


def _promotion(
    names: ReleaseNames, history: History, evaluation: Evaluation, approver: str, reason: str
) -> dg.RunRequest:
    approval = {"mode": Mode.approved.name, "approver": approver, "reason": reason}
    return dg.RunRequest(
        # The key stays the same, however often and by whatever means the version is approved, until
        # production moves. Each comparison has different evidence, even for a model that was registered anew.
        run_key=f"{names.model}-{_last_move(history)}-{evaluation.evidence}",
        job_name=names.promote_job,
        run_config={"ops": {names.production_op: {"config": {"version": evaluation.version, **approval}}}},
    )


def _last_move(history: History) -> int:
    """Return the number of the last move of production; 0 if it was never moved."""
    moves = history.moves(PRODUCTION)
    return moves[-1][0].number if moves else 0


def _waiting(history: History) -> dict[str, str]:
    """Return versions that passed against current production and were not approved, with their evidence."""
    production = history.version_with_alias(PRODUCTION)
    last = {evaluation.version: evaluation for evaluation in history.evaluations()}
    return {
        str(version): evaluation.evidence
        for version, evaluation in last.items()
        if evaluation.passed
        and evaluation.against == production
        and version != production
        and history.approval(evaluation.evidence) is None
    }


def _approvers(registry: ModelRegistryResource, model: str, waiting: Iterable[str]) -> dict[str, str]:
    """Return the approvers that tags of waiting versions name, by version."""
    if not waiting:
        return {}
    tags = {str(version.number): version.tags for version in registry.model(model).versions()}
    named = {version: tags.get(version, {}).get(APPROVED_BY_TAG, "") for version in waiting}
    return {version: approver for version, approver in named.items() if approver}
