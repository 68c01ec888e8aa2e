"""What starts comparisons and promotions: a version comes to staging, a person approves.

What follows when production has moved: production_sensor.py.
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
    look,
    run_key,
)
from ledgerline.registry.evidence import APPROVED_BY_TAG
from ledgerline.registry.history import Approval, Evaluation, History
from ledgerline.registry.moves import UnderWayError
from ledgerline.registry.promotion import Mode
from ledgerline.registry.stages import PRODUCTION, STAGING

# One that takes longer lost its process, whatever its status says, as after a command line that was killed.
RELEASED_WITHIN = timedelta(minutes=15)

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,  # of the command line, which starts its runs itself
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class SeenStaging(Seen):
    """What `staging_changed` remembers.

    Attributes:
        released: Up to this entry, versions that came to staging have got their run; None: it never looked.
        approved: Up to this entry, approvals have.
        waiting: Versions that wait for a person, and the evidence they are to be approved on.
        asked: Evidence that was approved of by a tag, and has got its run.
    """

    released: int | None = None
    approved: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def nothing_of_a_new_model(cls) -> Self:
        """Return what is known of a new model: each version that came to staging is to get its run."""
        return cls(released=0)


def staging_sensor(model: ReleasedModel, jobs: ReleaseJobs) -> dg.SensorDefinition:
    """Make the sensor that starts runs for versions that come to staging or were approved."""
    names = model.names

    @dg.sensor(
        name=names.sensor("staging_changed"),
        jobs=[jobs.release, jobs.promote],
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"A version of {model.name} has come to staging: compare it with production, and promote it if "
            "it passes every gate. Where a person is to approve, promote it once that was done. One version "
            "after the other."
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
    seen = SeenStaging.from_cursor(context.cursor)
    found = look(context, registry, names.model, seen)
    if found is None:
        return dg.SkipReason(NOT_YET)
    seen = seen.about(found)
    approvers = _approvers(registry, names.model, seen.waiting)
    if not approvers and not seen.is_to_read(found):
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=seen.after(found).cursor)
    try:
        history = registry.model(names.model).reconcile(seen.last_poll(found)).history
    except UnderWayError as error:
        return dg.SkipReason(clean(str(error)))

    before, seen = seen, seen.within(history)
    approvers = approvers if seen is before else {}
    promotions = _approved(names, history, seen.approved) | _tagged(names, history, approvers)
    releases = _to_release(history, seen.released)
    requests = list(promotions.values())
    # One at a time: the next is to be compared with what this one puts into production.
    if releases and not _is_releasing(context.instance, names):
        requests.append(_release(names, history, *releases.pop(0)))
    waiting = _waiting(history) if registry.promotion == Mode.approved else {}
    asked = {*seen.asked, *(seen.waiting[version] for version in approvers)} & set(waiting.values())
    released = releases[0][0] - 1 if releases else history.head
    after = replace(
        seen.after_reading(found, history.head, has_more=bool(releases)),
        seal=history.seal,
        released=released,
        approved=history.head,
        waiting={version: evidence for version, evidence in waiting.items() if evidence not in asked},
        asked=sorted(asked),
    )
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=after.cursor)
    if releases:
        versions = ", ".join(str(version) for _, version in releases)
        return dg.SensorResult(
            skip_reason=f"After the run under way: version {versions}.", cursor=after.cursor
        )
    return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=after.cursor)


def _to_release(history: History, released: int | None) -> list[tuple[int, int]]:
    """Versions that came to staging after this entry and were not judged since; at first, the one there.

    Returns:
        Entry and version, the earliest first.
    """
    came = {move.to_version: entry.number for entry, move, _ in history.moves(STAGING)}
    if released is None:
        holder = history.version_with_alias(STAGING)
        came = {holder: came[holder]} if holder is not None else {}
    evaluated = {e.record.version: e.number for e in history.entries if isinstance(e.record, Evaluation)}
    return sorted(
        (number, version)
        for version, number in came.items()
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
    """Whether such a run is under way, whoever started it."""
    recent = dg.RunsFilter(
        job_name=names.release_job,
        statuses=UNDER_WAY,
        created_after=datetime.now(UTC) - RELEASED_WITHIN,
    )
    return bool(instance.get_run_ids(recent, limit=1))


def _approved(names: ReleaseNames, history: History, approved: int) -> dict[str, dg.RunRequest]:
    """What was approved after this entry and still waits, by run key.

    Whatever has moved production closes an approval: it was carried out, or was for another comparison.
    """
    requests = {}
    for entry in history.entries:
        what = entry.record
        if isinstance(what, Approval) and entry.number > max(approved, _reign(history)):
            evaluation = history.evaluation(what.version)
            if evaluation is not None and evaluation.evidence == what.evidence:
                request = _promotion(names, history, evaluation, what.by, what.reason)
                requests[request.run_key or ""] = request
    return requests


def _tagged(names: ReleaseNames, history: History, approvers: Mapping[str, str]) -> dict[str, dg.RunRequest]:
    """What was approved by a tag in MLflow, by run key, which is that of an approval in the journal."""
    requests = {}
    for version, evidence in _waiting(history).items():
        evaluation = history.evaluation(int(version))
        if version in approvers and evaluation is not None and evaluation.evidence == evidence:
            request = _promotion(
                names, history, evaluation, approvers[version], f"tag {APPROVED_BY_TAG} in MLflow"
            )
            requests[request.run_key or ""] = request
    return requests


def _promotion(
    names: ReleaseNames, history: History, evaluation: Evaluation, approver: str, reason: str
) -> dg.RunRequest:
    config = {
        "version": evaluation.version,
        "mode": Mode.approved.name,
        "approver": approver,
        "reason": reason,
    }
    return dg.RunRequest(
        # The same however often and by what means it is approved, as long as production has not moved. The
        # evidence is another one for each comparison, also of a model that was made anew.
        run_key=f"{names.model}-{_reign(history)}-{evaluation.evidence}",
        job_name=names.promote_job,
        run_config={"ops": {names.production_op: {"config": config}}},
    )


def _reign(history: History) -> int:
    """The entry that began what is in production now; 0: nothing ever was."""
    moves = history.moves(PRODUCTION)
    return moves[-1][0].number if moves else 0


def _waiting(history: History) -> dict[str, str]:
    """Versions that passed against the one in production now and were not approved, with their evidence."""
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
    """Who is named in the tag of versions that wait, by version."""
    if not waiting:
        return {}
    tags = {str(version.number): version.tags for version in registry.model(model).versions()}
    named = {version: tags.get(version, {}).get(APPROVED_BY_TAG, "") for version in waiting}
    return {version: approver for version, approver in named.items() if approver}
