"""Lists the jobs of a project, or runs those that it names and prints the results, for `ledgerline run`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledgerline.cleaning.passwords import without_password
from ledgerline.cli import observing, releases
from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import extent
from ledgerline.cli.releases import Release
from ledgerline.cli.results import NewVersion, print_summaries, registered_versions
from ledgerline.cli.run_plan import PlannedJob
from ledgerline.cli.runs import Outcome, Runner
from ledgerline.dagster.released_models.names import released_models
from ledgerline.settings.project import Project

# The shortest phase in the traces that are printed; `ledgerline trace` prints more.
MIN_SECONDS = 0.5


def print_jobs(console: Console, loaded: LoadedProject) -> None:
    """Print the jobs of a project with their partitions, and the commands that run them."""
    if not loaded.job_names:
        console.print(Text(f"{loaded.project.module} defines no jobs."))
        return
    table = Table("job", "partitions", "what it does", title="Choose a job to run", title_justify="left")
    for name in loaded.job_names:
        job = loaded.job(name)
        partitions = "" if job.partitions_def is None else extent(job.partitions_def)
        table.add_row(Text(name), Text(partitions), Text(job.description or ""))
    console.print(table)
    how = (
        "`ledgerline run JOB` runs one of them. The jobs that `ledgerline run` runs without a name are "
        'declared in pyproject.toml: run = ["JOB", ...] in [tool.ledgerline].'
    )
    console.print(Text(how), soft_wrap=True)


def run_all(runner: Runner, plan: Sequence[PlannedJob]) -> bool:
    """Run jobs in order until one fails; export their runs and print the results.

    A job that releases a model takes the version that an earlier job has just registered.

    Returns:
        True if all runs succeeded. A version that a gate refuses is a result, and not a failure.
    """
    started = time.monotonic()
    outcomes: list[Outcome] = []
    released: list[Release] = []
    models = released_models(runner.loaded.defs)
    by_job = {names.release_job: names for names in models.values()}
    versions: dict[str, NewVersion] = {}
    for job in plan:
        if not all(outcome.success for outcome in outcomes):
            break
        if not job.batches:
            _print_stored(runner, job)
        elif job.name in by_job:
            names = by_job[job.name]
            version = versions.get(names.model)
            released.append(releases.release(runner, names, version.number if version else None))
            outcomes.append(released[-1].outcome)
        else:
            made = _executed(runner, job)
            outcomes += made
            versions |= registered_versions(runner.instance, models, [outcome.run_id for outcome in made])
    runner.export([outcome.run_id for outcome in outcomes])
    runner.console.print()
    for outcome in outcomes:
        observing.print_trace(runner.console, runner.instance, outcome.run_id, MIN_SECONDS)
    failed = [outcome for outcome in outcomes if not outcome.success]
    if failed:
        runner.report_failure(failed[-1])
        return False
    print_summaries(runner.console, runner.instance, [outcome.run_id for outcome in outcomes])
    for model, version in versions.items():
        runner.console.print(f"[bold]{model}[/] version [bold]{version.number}[/], {version.files}")
    for each in released:
        releases.report(runner, each)
    _conclude(runner, plan, time.monotonic() - started)
    return True


def _print_stored(runner: Runner, job: PlannedJob) -> None:
    span = " to ".join(dict.fromkeys([job.partitions[0], job.partitions[-1]]))
    runner.console.print(
        Text.assemble((job.name, "bold"), f"  {span} is materialised already (--fresh runs it again)")
    )


def _executed(runner: Runner, job: PlannedJob) -> list[Outcome]:
    """Execute the runs of a job until one fails."""
    outcomes: list[Outcome] = []
    for batch in job.batches:
        outcomes.append(runner.execute(job.name, batch))
        if not outcomes[-1].success:
            break
    return outcomes


def _conclude(runner: Runner, plan: Sequence[PlannedJob], seconds: float) -> None:
    console, settings = runner.console, runner.settings
    console.print(f"\nDone in {seconds:.0f} s. Tables: {settings.data}", soft_wrap=True)
    program = _program(settings.project)
    following = [
        (
            f"{program} backfill {job.name} --from {job.possible[0]} --to {job.possible[-1]}",
            f"all {len(job.possible)} partitions",
        )
        for job in plan
        if len(job.possible) > 1
    ]
    if settings.observer == "service":  # part of a stack, whose pages are already served
        console.print(f"Dagster: {settings.links.dagster}\nMLflow: {settings.links.mlflow}", soft_wrap=True)
    else:
        console.print(f"MLflow: {without_password(settings.tracking_uri)}", soft_wrap=True)
        following.insert(0, (_dev(settings.project), "the Dagster and MLflow pages of these runs"))
    console.print()
    for place, (command, what) in enumerate(following):
        lead = "       " if place else "Next:  "
        console.print(Text.assemble(lead, (command, "bold"), f"   {what}"), soft_wrap=True)


def _dev(project: Project) -> str:
    """Return the command that starts the pages: the target of the project's Makefile, if it has one."""
    makefile = project.root / "Makefile"
    if makefile.is_file() and "\ndev:" in makefile.read_text(encoding="utf-8", errors="replace"):
        return "make dev"
    return f"{_program(project)} dev"


def _program(project: Project) -> str:
    """Return the command for this program in the folder of the project."""
    program = Path(sys.argv[0]).absolute()
    return str(program.relative_to(project.root)) if program.is_relative_to(project.root) else "ledgerline"
