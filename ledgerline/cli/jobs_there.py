"""Prints the jobs of a project."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import extent


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
    console.print(
        Text(
            "`ledgerline run JOB` runs one of them. The jobs that `ledgerline run` runs without a name are "
            'declared in pyproject.toml: run = ["JOB", ...] in [tool.ledgerline].'
        ),
        soft_wrap=True,
    )
