"""Days and months as a person types them, turned into the partitions of a job."""

import dagster as dg

from assets.partitions import DAYS, MONTHS
from pipelines.definitions import defs
from pipelines.jobs import JOBS


class UnknownPartitionError(Exception):
    """A job, day or month that there is not; the message says which there are."""


def month(text: str) -> str:
    """The partition of a month given as "2013-07" (or by its first day).

    Raises:
        UnknownPartitionError: No model can be judged on it.
    """
    key = text if text.count("-") == 2 else f"{text}-01"
    months = MONTHS.get_partition_keys()
    if key not in months:
        raise UnknownPartitionError(
            f"{text!r} is not a month a model can be judged on: choose one from {months[0][:7]} "
            f"to {months[-1][:7]} (the flights are of 2013, and a month needs one before it)."
        )
    return key


def day(text: str) -> str:
    """The partition of a day given as "2013-07-31".

    Raises:
        UnknownPartitionError: There are no flights of it.
    """
    days = DAYS.get_partition_keys()
    if text not in days:
        raise UnknownPartitionError(
            f"{text!r} is not a day with flights: choose one from {days[0]} to {days[-1]}."
        )
    return text


def batches(job_name: str, first: str, last: str) -> list[list[str]]:
    """The runs that a backfill of a job takes: one over all days, or one for each month.

    Raises:
        UnknownPartitionError: There is no such job, day or month, or the range is empty.
    """
    partitioned = {job.name: defs.resolve_job_def(job.name).partitions_def for job in JOBS}
    names = [name for name, definition in partitioned.items() if definition is not None]
    if job_name not in names:
        raise UnknownPartitionError(
            f"{job_name!r} is not a job over days or months: choose one of {', '.join(names)}."
        )
    by_month = partitioned[job_name] == MONTHS
    parse, partitions = (month, MONTHS) if by_month else (day, DAYS)
    span = dg.PartitionKeyRange(parse(first), parse(last))
    if span.start > span.end:
        raise UnknownPartitionError(f"--from {first} is later than --to {last}.")
    keys = list(partitions.get_partition_keys_in_range(span))
    return [[key] for key in keys] if by_month else [keys]
