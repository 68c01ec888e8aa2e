"""What starts a training run because predictions have drifted. Training by the clock: schedules.py."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from assets.delay_model import FEATURES_ASSET
from assets.delay_model_version import FLIGHT_DELAY
from assets.partitions import MONTHS, judged_days, month_start, months_before, training_days
from ledgerline.dagster.released_models.drift_checks import PARTITION_METADATA
from ledgerline.dagster.released_models.watch import SCORES_STABLE
from pipelines.jobs import train_delay_model

if TYPE_CHECKING:
    from ledgerline.ledger.dagster_internals import AssetCheckExecutionRecord

DRIFT_ASSET = FLIGHT_DELAY.names.drift
CALIBRATED_ON_OUTCOMES = "calibrated_on_outcomes"

# That features have changed is for a person to look at: the model may be as good as before.
WATCHED_CHECKS = [dg.AssetCheckKey(DRIFT_ASSET, name) for name in (SCORES_STABLE, CALIBRATED_ON_OUTCOMES)]

VERSION_ASSET = dg.AssetKey("delay_model_version")

INTERVAL_SECONDS = 60
PAGE = 100


@dg.sensor(
    job=train_delay_model,
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Training takes all cores for a while, and somebody who only looks around did not ask for it.
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Train a model that learns from the month whose predictions have drifted, too: once for each month, "
        "and not if there is one already. It is off until you switch it on, for training takes a while of "
        "all cores."
    ),
)
def retrain_on_drift(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Ask for the model of the month after the last one that failed a watched check.

    The cursor is the number of the last check evaluation that need not be looked at again. It stays
    while days are missing that the model needs: then the same failure is found at the next tick.
    """
    seen = int(context.cursor or 0)
    executions = [
        each for check in WATCHED_CHECKS for each in executions_after(context.instance, check, seen)
    ]
    settled = str(settled_until(context.instance, executions, seen))
    failed = failed_months(executions)
    if not failed:
        return dg.SensorResult(skip_reason="No month has failed since the last look.", cursor=settled)
    with_next = [month for month in failed if month_after(month) in MONTHS.get_partition_keys()]
    if not with_next:
        last = max(failed)
        reason = (
            f"{last[:7]} has drifted, and no model can learn from it: {month_after(last)[:7]} has no data."
        )
        return dg.SensorResult(skip_reason=reason, cursor=settled)
    # The model of the month after the last one learns from those before, too.
    month = max(with_next)
    wanted = month_after(month)
    trained = [each for each in context.instance.get_materialized_partitions(VERSION_ASSET) if each >= wanted]
    if trained:
        reason = f"{month[:7]} has drifted, and there is a model of {max(trained)[:7]} already."
        return dg.SensorResult(skip_reason=reason, cursor=settled)
    missing = missing_days(context.instance, wanted)
    if missing:
        reason = (
            f"{month[:7]} has drifted. The model of {wanted[:7]} waits for {len(missing)} days of features; "
            f"the first is {missing[0]}."
        )
        return dg.SensorResult(skip_reason=reason, cursor=str(seen))
    request = dg.RunRequest(
        run_key=f"drift of {month[:7]}",
        partition_key=wanted,
        tags={"drifted_month": month, "failed_checks": ", ".join(sorted(failed[month]))},
    )
    return dg.SensorResult(run_requests=[request], cursor=settled)


def month_after(month: str) -> str:
    """The key of the next month, whether or not there is such a partition."""
    return months_before(month_start(month), -1).isoformat()


def executions_after(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, seen: int
) -> "list[AssetCheckExecutionRecord]":
    """All executions of a check with a number above this one, the last first."""
    found: list[AssetCheckExecutionRecord] = []
    before = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(check, PAGE, before)
        new = [each for each in page if each.id > seen]
        found += new
        if len(new) < PAGE:
            return found
        before = new[-1].id


def settled_until(
    instance: dg.DagsterInstance, executions: "Iterable[AssetCheckExecutionRecord]", seen: int
) -> int:
    """The number up to which no execution will change any more.

    An execution has its number from when its run was planned, so one that is still under way may be
    below others that have ended.
    """
    numbers = {each.id: each for each in executions}
    for number, each in sorted(numbers.items()):
        if result_of(each) is None and is_under_way(instance, each.run_id):
            return number - 1
    return max(numbers, default=seen)


def is_under_way(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run may still write something."""
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def failed_months(executions: "Sequence[AssetCheckExecutionRecord]") -> dict[str, set[str]]:
    """The watched checks that failed, by month; of several executions for a month the last counts."""
    last: dict[tuple[str, str], bool] = {}
    for each in sorted(executions, key=lambda each: each.id, reverse=True):
        result = result_of(each)
        if result is not None and PARTITION_METADATA in result.metadata:
            last.setdefault(
                (str(result.metadata[PARTITION_METADATA].value), result.check_name), result.passed
            )
    failed: dict[str, set[str]] = {}
    for (month, check), passed in last.items():
        if not passed:
            failed.setdefault(month, set()).add(check)
    return failed


def result_of(execution: "AssetCheckExecutionRecord") -> dg.AssetCheckEvaluation | None:
    """What an execution found; nothing as long as it is only planned."""
    found = execution.evaluation
    return found if isinstance(found, dg.AssetCheckEvaluation) else None


def missing_days(instance: dg.DagsterInstance, month: str) -> list[str]:
    """Days without features that the model of a month learns from, or is judged on."""
    needed = training_days(month) + judged_days(month)
    return sorted(set(needed) - instance.get_materialized_partitions(FEATURES_ASSET))


RETRAINING_SENSORS = [retrain_on_drift]
