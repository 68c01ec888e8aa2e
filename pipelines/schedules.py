"""When jobs run by the clock. 2013 is replayed: each tick stands for a day or month of that year."""

from datetime import date

import dagster as dg

from assets.partitions import MONTHS, months_before, replayed_day
from pipelines.jobs import replay_day, train_delay_model


@dg.schedule(job=replay_day, cron_schedule="0 5 * * *", execution_timezone="America/New_York")
def daily_replay(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Each morning, the 2013 day with today's weekday and season: read, build features, score."""
    today = context.scheduled_execution_time.date()
    day = replayed_day(today).isoformat()
    return dg.RunRequest(
        run_key=today.isoformat(), partition_key=day, tags={"replayed_on": today.isoformat()}
    )


@dg.schedule(job=train_delay_model, cron_schedule="0 6 1 * *", execution_timezone="America/New_York")
def monthly_retraining(
    context: dg.ScheduleEvaluationContext,
) -> dg.RunRequest | dg.SkipReason:
    """On the first of each month, a model judged on the month that has just ended, in 2013."""
    today = context.scheduled_execution_time.date()
    ended = months_before(date(2014 if today.month == 1 else 2013, today.month, 1), 1)
    if ended.isoformat() not in MONTHS.get_partition_keys():
        return dg.SkipReason(f"No model is judged on {ended:%B %Y}: there is no month before it.")
    return dg.RunRequest(
        run_key=today.isoformat(),
        partition_key=ended.isoformat(),
        tags={"replayed_on": today.isoformat()},
    )


SCHEDULES = [daily_replay, monthly_retraining]
