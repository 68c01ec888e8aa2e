"""The commands `ledgerline run` and `ledgerline backfill`."""

from typing import Annotated, Never

import typer

from ledgerline.cli.commands import OptionsError, loaded_project, prepared_settings, wide_console

Partitions = Annotated[
    list[str] | None,
    typer.Option(
        "--partition",
        help="Partition to run. 2013-07 or 2013-07-31 names the one that begins then, and 2013-07-31|EWR one "
        "with two dimensions. Repeat it for several.",
    ),
]
First = Annotated[str | None, typer.Option("--from", help="First partition of a range.")]
Last = Annotated[str | None, typer.Option("--to", help="Last partition of the range. Default: the first.")]
Config = Annotated[
    str | None, typer.Option(help="Run configuration: JSON, or the name of a JSON or YAML file.")
]


def run(
    job: Annotated[
        str | None, typer.Argument(help="Job of the project. Default: the jobs that pyproject.toml names.")
    ] = None,
    *,
    partition: Partitions = None,
    first: First = None,
    last: Last = None,
    config: Config = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Without a job: run earlier jobs for materialised partitions, too."),
    ] = False,
) -> None:
    """Run a job, or the jobs that the project names: from its data to a model in production.

    They are the list `run` of [tool.ledgerline] in pyproject.toml. The main job is the one that
    registers versions of a released model, or else the last one with partitions. It runs for --partition,
    whose default is `run_partition` in pyproject.toml, or else the last partition. By Dagster's partition
    mappings, earlier jobs run for the partitions that it needs and that are not materialised yet, and later
    jobs for the last of the partitions that depend on it. A job that releases a model compares and promotes
    the version that was just registered.
    """
    if job is None:
        if first is not None or last is not None or config is not None:
            raise OptionsError(
                "--from, --to and --config work only with a job.", "Name one: ledgerline run JOB --from ..."
            )
        _run_project(partition, fresh=fresh)
    if fresh:
        raise OptionsError("--fresh works only without a job.", "Omit it: a named job always runs.")
    _run_job(job, partition, first, last, config)


def backfill(
    job: Annotated[str, typer.Argument(help="Job of the project.")],
    partition: Partitions = None,
    first: First = None,
    last: Last = None,
) -> None:
    """Run a job for many of its partitions.

    A range is one run if the backfill policies of the job's assets allow it. Otherwise each run has as many
    partitions as the policies allow, which is one by default. A failed run does not stop the next one.
    """
    _run_job(job, partition, first, last, None)


def _run_project(partitions: list[str] | None, *, fresh: bool) -> Never:
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli import project_run, run_plan, runs

    project = settings.project
    with runs.local_instance(settings) as instance:
        if not project.run:
            project_run.print_jobs(wide_console(), loaded)
            raise typer.Exit(2)
        if partitions and len(partitions) > 1:
            raise OptionsError(
                "Without a job, --partition can be given only once.", "For several: ledgerline backfill JOB."
            )
        # An empty --partition, as from an unset variable of a script, counts as not given.
        requested = (partitions[0] if partitions else None) or project.run_partition
        plan = run_plan.plan(instance, loaded, project.run, requested, fresh=fresh)
        with runs.runner(instance, settings, loaded) as runner:
            success = project_run.run_all(runner, plan)
    raise typer.Exit(0 if success else 1)


def _run_job(
    name: str, keys: list[str] | None, first: str | None, last: str | None, config: str | None
) -> Never:
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli import backfills, run_config, runs

    with runs.local_instance(settings) as instance:
        job = loaded.job(name)
        planned = backfills.planned(job, backfills.Given(tuple(keys or ()), first, last))
        given = run_config.read(config)
        if given:
            run_config.require_valid(job, given)
        with runs.runner(instance, settings, loaded) as runner:
            success = backfills.run_all(runner, name, planned, given)
    raise typer.Exit(0 if success else 1)
