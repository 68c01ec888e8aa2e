"""The command line. Each command calls the module that does its work."""

import gc

# Imports leave hardly any garbage, and searching their objects takes 7 % of the time of --help.
gc.disable()

from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from ledgerline.cli import new_project, registry, run_commands  # noqa: E402
from ledgerline.cli.commands import (  # noqa: E402
    OptionsError,
    end_at_once,
    instance_beside,
    prepared_settings,
    wide_console,
)
from ledgerline.cli.project_commands import WithProjectCommands  # noqa: E402
from ledgerline.settings.extras import require  # noqa: E402

gc.freeze()
gc.enable()

app = typer.Typer(
    name="ledgerline",
    cls=WithProjectCommands,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # joins the lines of a paragraph, unlike "rich"
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(registry.app)


@app.callback()
def main() -> None:
    """Run, observe and release the pipelines and models of a project."""


app.command()(new_project.new)
app.command()(run_commands.run)
app.command()(run_commands.backfill)


@app.command()
def dev() -> None:
    """Start Dagster, MLflow and the prediction service on the local state; Ctrl-C ends all of them."""
    settings = prepared_settings()
    for extra in ("ui", "serving"):
        require(extra, "`ledgerline dev`")
    from ledgerline.cli import dev_servers

    dev_servers.run_until_interrupted(Console(), settings)


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A registered model to serve, as name or name@alias. Repeat it for several. Default: the "
            "models of the project."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. Default: 8080.", min=0)] = None,
) -> None:
    """Serve predictions of the versions in production over HTTP, and activate new ones; until Ctrl-C."""
    # Serving does without prepared_settings, because importing Dagster takes seconds.
    from ledgerline.serving import server
    from ledgerline.serving.settings import ServingSettings, prepare_libraries

    given = {
        "LEDGERLINE_SERVING_MODELS": ",".join(model or []),
        "LEDGERLINE_SERVING_HOST": host or "",
        "LEDGERLINE_SERVING_PORT": "" if port is None else str(port),
    }
    settings = ServingSettings.from_environment(
        options={name: value for name, value in given.items() if value}
    )
    prepare_libraries()  # before MLflow is imported, and after `.env` is read, whose values take precedence
    server.serve(settings)


@app.command()
def settings() -> None:
    """List the value of each setting and its origin: environment, .env, pyproject.toml or default."""
    from ledgerline.cli import settings_table

    settings_table.print_settings(wide_console())


@app.command()
def observe(
    run_id: Annotated[
        str | None, typer.Argument(help="Run to export, by its id or the first characters of it.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Export all runs, the oldest first.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="With --all: export only runs created since then: 2026-01-31, 2026-01-31T12:00, 12h or 7d."
        ),
    ] = None,
    following: Annotated[
        bool,
        typer.Option("--follow", help="Export runs while they are executed, until Ctrl-C."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="With --all: print each run that cannot be exported, and not each reason."
        ),
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Write nothing to the instance: no links, no cursors, no files."),
    ] = False,
    dagster_home: Annotated[
        Path | None,
        typer.Option(
            help="DAGSTER_HOME of another Dagster instance to observe. Only its storages are opened."
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="MLflow experiment for the runs of that instance. Default: the name of its folder."
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(help="OpenLineage namespace for that instance. Default: the name of its folder."),
    ] = None,
    dagster_url: Annotated[
        str | None, typer.Option(help="URL of that instance's Dagster UI, for links. Default: no links.")
    ] = None,
) -> None:
    """Export runs as traces, MLflow runs and lineage events. Repeating it changes nothing.

    The sensors that `ledgerline dev` starts do the same. This command is for deployments with an observer
    service (--follow), for earlier runs, and for other Dagster instances (--dagster-home) on SQLite, or on
    PostgreSQL with the extra `postgres`. Without a project, DAGSTER_HOME names the instance.

    Two things are written to another instance: an event in each run, which links to its trace and its MLflow
    run, and the position up to which runs are exported. --read-only writes nothing. An instance that is not
    writable, or has the schema of another version of Dagster, is only read.
    """
    if (run_id is not None) + every + following != 1:
        raise OptionsError(
            "`ledgerline observe` needs exactly one of a run id, --all and --follow.",
            "See ledgerline observe --help.",
        )
    if since is not None and not every:
        raise OptionsError("--since works only with --all.", "Add --all, or omit --since.")
    dagster_home = instance_beside(dagster_home)
    if dagster_home is None and (experiment or namespace or dagster_url):
        raise OptionsError(
            "--experiment, --namespace and --dagster-url work only with --dagster-home.",
            "The project's own instance has them as settings: see the comments in .env.example.",
        )
    settings = prepared_settings(dagster_home)
    from ledgerline.cli import observed_instances, observing

    target = observed_instances.target_of(
        dagster_home,
        settings,
        only_read=read_only,
        experiment=experiment,
        namespace=namespace,
        dagster_url=dagster_url,
    )
    console = Console()
    start = observing.moment(since) if since is not None else None
    with target.opened() as observed:
        if announcement := target.announcement(observed):
            console.print(Text(announcement), soft_wrap=True)
        observers = target.observers(console, observed)
        if following:
            complete = observing.follow(console, observed.instance, observers)
        elif run_id is not None:
            complete = observing.export_runs(console, observed.instance, observers, [run_id])
        else:
            complete = observing.export_all(console, observed.instance, observers, start, verbose=verbose)
    if following and not complete:
        end_at_once()
    raise typer.Exit(0 if complete else 1)


@app.command()
def trace(
    run_id: Annotated[str, typer.Argument(help="Run to print, by its id or the first characters of it.")],
    least: Annotated[
        float, typer.Option("--least", help="Omit phases that took fewer seconds.", min=0.0)
    ] = 0.1,
    dagster_home: Annotated[
        Path | None, typer.Option(help="DAGSTER_HOME of another Dagster instance, which is only read.")
    ] = None,
) -> None:
    """Print the trace of a run as a tree with durations."""
    dagster_home = instance_beside(dagster_home)
    settings = prepared_settings(dagster_home)
    from ledgerline.cli import observed_instances, observing

    target = observed_instances.target_of(dagster_home, settings, only_read=dagster_home is not None)
    with target.opened() as observed:
        observing.print_trace(Console(), observed.instance, run_id, least)
