"""`ledgerline registry ...`: which versions there are, who is in production and why, and how to change it."""

from typing import TYPE_CHECKING, Annotated

import typer

from ledgerline.cli import registry_changes
from ledgerline.cli.commands import loaded_project, prepared_settings, wide_console
from ledgerline.cli.registry_changes import Model
from ledgerline.cli.registry_errors import clear_errors, moment_of

if TYPE_CHECKING:
    from ledgerline.dagster.settings import Settings

app = typer.Typer(
    name="registry", no_args_is_help=True, help="Versions of models: compare, promote, take back, look up."
)


@app.command("list")
def list_models() -> None:
    """Every registered model, and who is in staging and production."""
    settings = prepared_settings()
    from ledgerline.cli import stages
    from ledgerline.dagster.resources import registry_of

    with clear_errors():
        stages.print_models(wide_console(), registry_of(settings))


@app.command()
def show(
    model: Model = None,
    version: Annotated[int | None, typer.Option(help="The version.", min=1)] = None,
) -> None:
    """The versions of a model with their stages; with --version, all that is known of one."""
    settings = prepared_settings()
    from ledgerline.cli import stages
    from ledgerline.dagster.resources import registry_of

    with clear_errors():
        stages.print_model(wide_console(), registry_of(settings), _named(settings, model), version)


@app.command()
def history(
    model: Model = None,
    at: Annotated[
        str | None,
        typer.Option(help="Who was in production at 2026-11-03T14:05 (local time), or 30m, 12h, 7d ago."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Every judgement, approval and move of an alias: who, when, why; also those made outside."""
    settings = prepared_settings()
    from ledgerline.cli import stages
    from ledgerline.dagster.resources import registry_of

    with clear_errors():
        moment = moment_of(at) if at is not None else None
        name = _named(settings, model)
        stages.print_history(wide_console(), registry_of(settings), name, moment, as_json)


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
            help="Where MLflow reaches `ledgerline registry listen` or `ledgerline serve`, with the path "
            "/webhooks/registry."
        ),
    ],
    name: Annotated[str, typer.Option(help="What MLflow calls it; for each address another.")] = "ledgerline",
) -> None:
    """Let MLflow tell of changes at once, by signed webhooks; without, they are seen within seconds."""
    settings = prepared_settings()
    from rich.console import Console

    from ledgerline.cli import webhooks

    with clear_errors():
        accepted = webhooks.register(Console(), settings.tracking_uri, url, settings.webhook_secret, name)
    raise typer.Exit(0 if accepted else 1)


@app.command()
def listen(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Take MLflow's webhooks, check their signatures, and wake the sensors; until Ctrl-C."""
    settings = prepared_settings()
    from rich.console import Console

    from ledgerline.cli import webhooks
    from ledgerline.ledger.storages.instances import own_instance

    with clear_errors(), own_instance(settings.dagster_home) as observed:
        webhooks.listen(Console(), observed.instance, settings.webhook_secret, host, settings.webhook_port)


def _named(settings: "Settings", model: str | None) -> str:
    """Return the model that is meant; the definitions are asked only if none is named."""
    if model is not None:
        return model
    from ledgerline.cli.released import the_only_one

    return the_only_one(loaded_project(settings))
