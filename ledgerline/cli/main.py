"""The command line. What each command does is in the module it calls."""

import gc

# Imports leave next to nothing to collect, and looking through what they make takes 7 % of --help.
gc.disable()

from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from ledgerline.cli import new_project, registry, run_commands  # noqa: E402
from ledgerline.cli.commands import (  # noqa: E402
    end_at_once,
    instance_beside,
    prepared_settings,
    settings_beside,
    stop,
)
from ledgerline.cli.project_commands import WithProjectCommands  # noqa: E402
from ledgerline.settings.extras import require  # noqa: E402

gc.freeze()
gc.enable()

app = typer.Typer(
    name="ledgerline",
    cls=WithProjectCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(registry.app)


@app.callback()
def main() -> None:
    """Pipelines whose runs, data and models account for themselves."""


app.command()(new_project.new)
app.command()(run_commands.run)
app.command()(run_commands.backfill)


@app.command()
def dev() -> None:
    """Start Dagster, MLflow and serving on the local state; Ctrl-C ends all of them."""
    settings = prepared_settings()
    for extra in ("ui", "serving"):
        require(extra, "`ledgerline dev`")
    from ledgerline.cli import dev_servers
    from ledgerline.mlflow_store.store import StoreUnreachableError

    try:
        dev_servers.run_until_interrupted(Console(), settings)
    except (dev_servers.ServerError, StoreUnreachableError) as error:
        stop(error)


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="What to serve: a registered model, or model@alias; again for more. Default: the project's."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. Default: 8080.", min=0)] = None,
) -> None:
    """Answer requests with the version of a model that is in production, and follow it; until Ctrl-C."""
    # Not prepared_settings: serving does without Dagster, whose import takes seconds.
    from ledgerline.serving import server, settings

    settings.prepare_libraries()
    given = {
        "LEDGERLINE_SERVING_MODELS": ",".join(model or []),
        "LEDGERLINE_SERVING_HOST": host or "",
        "LEDGERLINE_SERVING_PORT": "" if port is None else str(port),
    }
    chosen = {name: value for name, value in given.items() if value}
    try:
        server.serve(settings.ServingSettings.from_environment(settings.process_environment() | chosen))
    except (ValueError, OSError, server.ListenError) as error:
        stop(error)


@app.command()
def observe(
    run_id: Annotated[str | None, typer.Argument(help="A run to show, from its beginning.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Show all runs, the oldest first.")] = False,
    since: Annotated[
        str | None,
        typer.Option(help="With --all: only runs since 2026-01-31, 2026-01-31T12:00, 12h or 7d ago."),
    ] = None,
    following: Annotated[
        bool,
        typer.Option("--follow", help="Show runs as they happen, until Ctrl-C; as a service of its own."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="With --all: name each run that cannot be shown, not each reason."
        ),
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Write nothing to the instance: no links to its runs, no cursors, no files."
        ),
    ] = False,
    dagster_home: Annotated[
        Path | None,
        typer.Option(
            help="DAGSTER_HOME of another Dagster instance to observe; only its storages are opened."
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="MLflow experiment of that instance's runs. Default: named after its folder."),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(help="OpenLineage namespace of that instance. Default: named after its folder."),
    ] = None,
    dagster_url: Annotated[
        str | None, typer.Option(help="Where that instance's Dagster UI is, for links. Default: no links.")
    ] = None,
) -> None:
    """Show runs as traces, as MLflow runs and as lineage; the same again does no harm.

    The sensors of `ledgerline dev` do this by themselves. This is for deployments that leave it to a service
    (--follow), for runs from before, and for other Dagster instances (--dagster-home): on SQLite, or on
    PostgreSQL with the extra `postgres` of this project. Without a project, DAGSTER_HOME names that instance.

    To another instance an event is written for each run, which links to its trace and its MLflow run, and how
    far it has been shown; --read-only writes nothing. An instance that cannot be written, or has the schema
    of another version of Dagster, is only read in any case.
    """
    if (run_id is not None) + every + following != 1:
        stop(ValueError("Say what to observe: a run id, --all, or --follow. See ledgerline observe --help."))
    if since is not None and not every:
        stop(ValueError("--since goes with --all."))
    dagster_home = instance_beside(dagster_home)
    if dagster_home is None and (experiment or namespace or dagster_url):
        stop(ValueError("--experiment, --namespace and --dagster-url go with --dagster-home."))
    settings = settings_beside(dagster_home)
    from ledgerline.cli import observed_instances, observing
    from ledgerline.ledger.storages.config import InstanceError

    if dagster_home is None:
        target = observed_instances.own_target(settings, only_read=read_only)
    else:
        target = observed_instances.foreign_target(
            dagster_home,
            settings,
            only_read=read_only,
            experiment=experiment,
            namespace=namespace,
            dagster_url=dagster_url,
        )
    console = Console()
    try:
        start = observing.moment(since) if since is not None else None
        with target.opened() as observed:
            if announcement := target.announcement(observed):
                console.print(Text(announcement), soft_wrap=True)
            observers = target.observers(console, observed)
            if following:
                complete = observing.follow(console, observed.instance, observers)
            elif run_id is not None:
                complete = observing.show_runs(console, observed.instance, observers, [run_id])
            else:
                complete = observing.show_all(console, observed.instance, observers, start, verbose=verbose)
    except (observing.ObservingError, InstanceError) as error:
        stop(error)
    if following and not complete:
        end_at_once()
    raise typer.Exit(0 if complete else 1)


@app.command()
def trace(
    run_id: Annotated[str, typer.Argument(help="A run of the Dagster instance.")],
    least: Annotated[
        float, typer.Option("--least", help="Seconds; shorter phases are left out.", min=0.0)
    ] = 0.1,
    dagster_home: Annotated[
        Path | None, typer.Option(help="DAGSTER_HOME of another Dagster instance, which is only read.")
    ] = None,
) -> None:
    """Print the trace of a run as a tree, with durations."""
    dagster_home = instance_beside(dagster_home)
    settings = settings_beside(dagster_home)
    from ledgerline.cli import observed_instances, observing
    from ledgerline.ledger.storages.config import InstanceError

    if dagster_home is None:
        target = observed_instances.own_target(settings, only_read=False)
    else:
        target = observed_instances.foreign_target(dagster_home, settings, only_read=True)
    try:
        with target.opened() as observed:
            observing.print_trace(Console(), observed.instance, run_id, least)
    except (observing.ObservingError, InstanceError) as error:
        stop(error)
