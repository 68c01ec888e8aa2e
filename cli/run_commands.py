"""`ledgerline run` and `ledgerline backfill` as a person types them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cli.commands import loaded_project, prepared_settings, stop

Partitions = Annotated[
    list[str] | None,
    typer.Option(
        "--partition",
        help="A partition, 2013-07 or 2013-07-31 for short where one begins then; again for more. Of several "
        "dimensions 2013-07-31|EWR.",
    ),
]
First = Annotated[str | None, typer.Option("--from", help="The first partition of a range.")]
Last = Annotated[str | None, typer.Option("--to", help="The last one; without it, only the first.")]
Config = Annotated[
    str | None, typer.Option(help="Run configuration: JSON, or the name of a JSON or YAML file.")
]


def run(
    job: Annotated[str | None, typer.Argument(help="A job of the project's definitions.")] = None,
    *,
    partition: Partitions = None,
    first: First = None,
    last: Last = None,
    config: Config = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Without a job: run upstream partitions that are there, too.")
    ] = False,
) -> None:
    """Run a job, for some of its partitions if it has any; without a job, what the project names."""
    settings = prepared_settings()
    if job is not None:
        _run_job(job, partition, first, last, config)
    loaded = loaded_project(settings)
    from cli import first_run, runs

    with _clear_errors(), runs.local_instance(settings) as instance:
        from assets.partitions import MONTHS
        from cli import partition_keys

        month = partition_keys.understood(MONTHS, (partition or ["2013-07"])[0], "train_delay_model")
        with runs.runner(instance, settings, loaded) as runner:
            success = first_run.run_all(runner, month, fresh)
    raise typer.Exit(0 if success else 1)


def backfill(
    job: Annotated[str, typer.Argument(help="A job of the project's definitions.")],
    partition: Partitions = None,
    first: First = None,
    last: Last = None,
) -> None:
    """Run a job for many of its partitions.

    A range is one run where the backfill policies of the job's assets allow it, and else a run for each
    partition, or for as many as they allow. A run that fails does not stop the next.
    """
    _run_job(job, partition, first, last, None)


def _run_job(
    name: str, keys: list[str] | None, first: str | None, last: str | None, config: str | None
) -> None:
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from cli import backfills, run_config, runs

    with _clear_errors(), runs.local_instance(settings) as instance:
        job = loaded.job(name)
        planned = backfills.planned(job, backfills.Given(tuple(keys or ()), first, last))
        given = run_config.read(config)
        if given:
            run_config.require_valid(job, given)
        with runs.runner(instance, settings, loaded) as runner:
            success = backfills.run_all(runner, name, planned, given)
    raise typer.Exit(0 if success else 1)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Show what a person can mend without a stack trace."""
    from cli.backfills import PartitionsGivenError
    from cli.loaded_project import UnknownJobError
    from cli.partition_keys import UnknownPartitionError
    from cli.run_config import RunConfigError

    try:
        yield
    except (PartitionsGivenError, RunConfigError, UnknownJobError, UnknownPartitionError) as error:
        stop(error)
