"""`ledgerline run` and `ledgerline backfill` as a person types them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Never

import typer

from ledgerline.cli.commands import loaded_project, prepared_settings, stop, wide_console

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
        bool,
        typer.Option("--fresh", help="Without a job: run upstream jobs for what is there already, too."),
    ] = False,
) -> None:
    r"""Run a job; without one, the jobs that the project names, from its data to a model in production.

    Those are in `run` of \[tool.ledgerline] in pyproject.toml. The main one is that which registers versions
    of a released model, or else the last that has partitions. It runs for --partition; default:
    `run_partition` there, or its last partition. Jobs before it run for the partitions that it needs by
    Dagster's partition mappings, and that are not there already; jobs after it for the last of the partitions
    that come of it. Jobs without partitions are run as they are. A job that releases a model compares and
    promotes the version that was just registered.
    """
    if job is None:
        if first is not None or last is not None or config is not None:
            stop(ValueError("--from, --to and --config go with a job: ledgerline run JOB --from ..."))
        _run_project(partition, fresh=fresh)
    if fresh:
        stop(ValueError("--fresh goes without a job: a job is run in any case."))
    _run_job(job, partition, first, last, config)


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


def _run_project(partitions: list[str] | None, *, fresh: bool) -> Never:
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli import jobs_there, project_run, run_plan, runs

    project = settings.project
    with _clear_errors(), runs.local_instance(settings) as instance:
        if not project.run:
            jobs_there.print_jobs(wide_console(), loaded)
            raise typer.Exit(2)
        asked = _only(partitions) or project.run_partition
        plan = run_plan.plan(instance, loaded, project.run, asked, fresh=fresh)
        with runs.runner(instance, settings, loaded) as runner:
            success = project_run.run_all(runner, plan)
    raise typer.Exit(0 if success else 1)


def _only(partitions: list[str] | None) -> str | None:
    if not partitions:
        return None
    if len(partitions) > 1:
        stop(ValueError("Without a job there is one partition: name it once. For more: ledgerline backfill."))
    return partitions[0]


def _run_job(
    name: str, keys: list[str] | None, first: str | None, last: str | None, config: str | None
) -> Never:
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli import backfills, run_config, runs

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
    from ledgerline.cli.backfills import PartitionsGivenError
    from ledgerline.cli.loaded_project import UnknownJobError
    from ledgerline.cli.partition_keys import UnknownPartitionError
    from ledgerline.cli.run_config import RunConfigError
    from ledgerline.cli.run_plan import NoPartitionError

    try:
        yield
    except (
        NoPartitionError,
        PartitionsGivenError,
        RunConfigError,
        UnknownJobError,
        UnknownPartitionError,
    ) as error:
        stop(error)
