"""The sensor that starts training after predictions have drifted. predictions_drift.py checks for it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.polls import is_in_progress
from ledgerline.dagster.released_models.predictions_drift import PARTITION_METADATA
from ledgerline.dagster.released_models.watch import FEATURES_STABLE, RetrainOnDrift, Watch

if TYPE_CHECKING:
    from ledgerline.ledger.dagster_internals import AssetCheckExecutionRecord

INTERVAL_SECONDS = 60
PAGE = 100
NOTHING_FAILED = "No partition has failed since the last tick."


def retraining_sensor(model: ReleasedModel, watch: Watch, retrain: RetrainOnDrift) -> dg.SensorDefinition:
    """Return the sensor that starts the training job after drift; it trains on the drifted rows, too."""

    @dg.sensor(
        name=model.names.sensor("retrain_on_drift"),
        job_name=retrain.job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        # Training uses all cores for a while, which new users would not expect.
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            f"Trains a version of {model.name} that also learns from the partition whose predictions have "
            "drifted: once for each partition, and not if a later version exists already. The sensor is off "
            "by default, because training uses all cores for a while."
        ),
    )
    def retrain_on_drift(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        # The check of features is left out: the model may be as good as before, although they have changed.
        names = [name for name in watch.checks(model.kind, model.features) if name != FEATURES_STABLE]
        return _tick(context, model, [dg.AssetCheckKey(model.names.drift, name) for name in names], retrain)

    return retrain_on_drift


def _tick(
    context: dg.SensorEvaluationContext,
    model: ReleasedModel,
    checks: Sequence[dg.AssetCheckKey],
    retrain: RetrainOnDrift,
) -> dg.SensorResult:
    """Request the version of the partition after the last one that failed a watched check.

    The cursor is the number of the last check execution that need not be read again. It does not advance
    while rows are missing that the version needs, so that the next tick reads the same failure.
    """
    seen = int(context.cursor or 0)
    executions = [each for check in checks for each in executions_after(context.instance, check, seen)]
    cursor = str(final_until(context.instance, executions, seen))
    failed = failed_partitions(executions)
    if not failed:
        return dg.SensorResult(skip_reason=NOTHING_FAILED, cursor=cursor)
    definition = model.versions.partitions_def
    keys = [] if definition is None else list(definition.get_partition_keys())
    following = dict(pairwise(keys))
    with_next = [partition for partition in failed if partition in following]
    waits = bool(keys) and keys[-1] in failed and _grows(model)
    if waits:
        # The next partition has not begun yet; until it begins, the failure is read again.
        cursor = str(seen)
    if not with_next and waits:
        reason = (
            f"{keys[-1]} has drifted. The version of the next partition waits until the partition begins."
        )
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    if not with_next:
        reason = (
            f"{max(failed)} has drifted, and no version can learn from it: "
            f"{model.versions_key.to_user_string()} has no later partition."
        )
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    # One version suffices: the version after the last drifted partition also learns from earlier ones.
    drifted = max(with_next, key=keys.index)
    wanted = following[drifted]
    made = context.instance.get_materialized_partitions(model.versions_key)
    trained = [key for key in keys[keys.index(wanted) :] if key in made]
    if trained:
        reason = f"{drifted} has drifted, and a version of {trained[-1]} exists already."
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    stored = context.instance.get_materialized_partitions(model.rows_key)
    missing = sorted(set(retrain.needs(wanted)) - set(stored))
    if missing:
        reason = (
            f"{drifted} has drifted. The version of {wanted} waits for {len(missing)} partitions of "
            f"{model.rows_key.to_user_string()}; the first is {missing[0]}."
        )
        return dg.SensorResult(skip_reason=reason, cursor=str(seen))
    request = dg.RunRequest(
        run_key=f"drift of {drifted}",
        partition_key=wanted,
        tags={"drifted_partition": drifted, "failed_checks": ", ".join(sorted(failed[drifted]))},
    )
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def _grows(model: ReleasedModel) -> bool:
    """Return whether further partitions of the versions will begin."""
    definition = model.versions.partitions_def
    end = definition.end if isinstance(definition, dg.TimeWindowPartitionsDefinition) else None
    return end is None or end > datetime.now(UTC)


def executions_after(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, seen: int
) -> "list[AssetCheckExecutionRecord]":
    """Return all executions of a check with a number above this one, the last first."""
    executions: list[AssetCheckExecutionRecord] = []
    before = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(check, PAGE, before)
        new = [each for each in page if each.id > seen]
        executions += new
        if len(new) < PAGE:
            return executions
        before = new[-1].id


def final_until(
    instance: dg.DagsterInstance, executions: "Iterable[AssetCheckExecutionRecord]", seen: int
) -> int:
    """Return the number up to which all executions are final.

    The number of an execution is assigned when its run is planned, so an execution in progress may have a
    lower number than others that have ended.
    """
    numbers = {each.id: each for each in executions}
    for number, each in sorted(numbers.items()):
        if result_of(each) is None and is_in_progress(instance, each.run_id):
            return number - 1
    return max(numbers, default=seen)


def failed_partitions(executions: "Sequence[AssetCheckExecutionRecord]") -> dict[str, set[str]]:
    """Return the watched checks that failed, by partition; the last execution for a partition counts."""
    last: dict[tuple[str, str], bool] = {}
    for each in sorted(executions, key=lambda each: each.id, reverse=True):
        result = result_of(each)
        if result is not None and PARTITION_METADATA in result.metadata:
            last.setdefault(
                (str(result.metadata[PARTITION_METADATA].value), result.check_name), result.passed
            )
    failed: dict[str, set[str]] = {}
    for (partition, check), passed in last.items():
        if not passed:
            failed.setdefault(partition, set()).add(check)
    return failed


def result_of(execution: "AssetCheckExecutionRecord") -> dg.AssetCheckEvaluation | None:
    """Return the result of an execution; None while it is only planned."""
    evaluation = execution.evaluation
    return evaluation if isinstance(evaluation, dg.AssetCheckEvaluation) else None
