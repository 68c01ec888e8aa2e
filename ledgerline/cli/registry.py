"""The commands `ledgerline registry ...`, which show and change the versions of registered models."""

from typing import TYPE_CHECKING, Annotated

import typer

from ledgerline.cli import registry_changes
from ledgerline.cli.commands import loaded_project, prepared_settings, wide_console
from ledgerline.cli.registry_changes import Model

if TYPE_CHECKING:
    from ledgerline.dagster.settings import Settings
    from ledgerline.registry.registry import Model as RegistryModel

app = typer.Typer(
    name="registry",
    no_args_is_help=True,
    help="Show, compare, promote and roll back versions of registered models.",
)


@app.command("list")
def list_models() -> None:
    """List every registered model, with its versions in staging and production."""
    settings = prepared_settings()
    from ledgerline.cli import stages
    from ledgerline.dagster.resources import registry_of

    stages.print_models(wide_console(), registry_of(settings))


@app.command()
def show(
    model: Model = None,
    version: Annotated[int | None, typer.Option(help="Show only this version.", min=1)] = None,
) -> None:
    """Show the versions of a model with their stages, or everything that is recorded of one version."""
    settings = prepared_settings()
    from ledgerline.cli import stages

    stages.print_model(wide_console(), _model(settings, model), version)


@app.command()
def history(
    model: Model = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="Show the version in production at 2026-11-03T14:05 (local time), or 30m, 12h, 7d ago."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every evaluation, approval and move of an alias, with its time, author and reason.

    Aliases that were changed outside the journal are shown, and are not recorded.
    """
    settings = prepared_settings()
    from ledgerline.cli import stages
    from ledgerline.cli.observing import moment

    time = moment(at) if at is not None else None
    stages.print_history(wide_console(), _model(settings, model), time, as_json)


@app.command()
def reconcile(model: Model = None) -> None:
    """Record in the journal which aliases were changed outside it, and finish abandoned moves.

    Sensors and promotions do so, too. Repeating the command changes nothing.
    """
    settings = prepared_settings()
    from ledgerline.cli import stages

    stages.print_reconciliation(wide_console(), _model(settings, model))


for change in (
    registry_changes.compare,
    registry_changes.replay,
    registry_changes.promote,
    registry_changes.rollback,
    registry_changes.approve,
):
    app.command()(change)


@app.command()
def webhook(
    url: Annotated[
        str,
        typer.Argument(
            help="URL at which MLflow reaches `ledgerline registry listen` or `ledgerline serve`, with the "
            "path /webhooks/registry."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the webhook; each URL needs another.")] = "ledgerline",
) -> None:
    """Register a signed webhook with which MLflow reports changes at once, instead of within seconds."""
    settings = prepared_settings()
    from rich.console import Console

    from ledgerline.cli import webhooks

    accepted = webhooks.register(Console(), settings.tracking_uri, url, settings.webhook_secret, name)
    raise typer.Exit(0 if accepted else 1)


@app.command()
def listen(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Receive MLflow's webhooks, verify their signatures, and notify the sensors, until Ctrl-C."""
    settings = prepared_settings()
    from rich.console import Console

    from ledgerline.cli import webhooks
    from ledgerline.ledger.storages.instances import own_instance

    with own_instance(settings.dagster_home) as observed:
        webhooks.listen(Console(), observed.instance, settings.webhook_secret, host, settings.webhook_port)


def _model(settings: "Settings", name: str | None) -> "RegistryModel":
    """Return the registered model of this name; without one, the only model that the definitions release."""
    from ledgerline.dagster.resources import registry_of

    if name is None:  # otherwise the definitions, which take long to load, are not needed
        from ledgerline.cli.released import the_only_one

        name = the_only_one(loaded_project(settings))
    return registry_of(settings).model(name)
