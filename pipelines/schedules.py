"""Schedules jobs. The year 2013 is replayed: each tick stands for a day or month of it."""

from datetime import date

import dagster as dg

from assets.partitions import MONTHS, months_before, replayed_day
from pipelines.jobs import replay_day, train_delay_model


@dg.schedule(job=replay_day, cron_schedule="0 5 * * *", execution_timezone="America/New_York")
def daily_replay(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Replay the day of 2013 with today's weekday and season each morning."""
    today = context.scheduled_execution_time.date()
    day = replayed_day(today).isoformat()
    return dg.RunRequest(
        run_key=today.isoformat(), partition_key=day, tags={"replayed_on": today.isoformat()}
    )


@dg.schedule(job=train_delay_model, cron_schedule="0 6 1 * *", execution_timezone="America/New_York")
def monthly_retraining(
    context: dg.ScheduleEvaluationContext,
) -> dg.RunRequest | dg.SkipReason:
    """Train a model on the first of each month, and evaluate it on the month before, in 2013."""
    today = context.scheduled_execution_time.date()
    ended = months_before(date(2014 if today.month == 1 else 2013, today.month, 1), 1)
    if ended.isoformat() not in MONTHS.get_partition_keys():
        return dg.SkipReason(f"No model is evaluated on {ended:%B %Y}, because no month before it has data.")
    return dg.RunRequest(
        run_key=today.isoformat(),
        partition_key=ended.isoformat(),
        tags={"replayed_on": today.isoformat()},
    )


SCHEDULES = [daily_replay, monthly_retraining]
