"""`ledgerline registry ...`: which versions there are, who is in production and why, and how to change it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Never

import typer
from rich.console import Console

from cli.commands import loaded_project, prepared_settings, stop, wide_console

if TYPE_CHECKING:
    from ledgerline.dagster.settings import Settings

app = typer.Typer(
    name="registry", no_args_is_help=True, help="Versions of models: compare, promote, take back, look up."
)

MODEL = "flight_delay"

Model = Annotated[str, typer.Argument(help="The registered model.")]
Version = Annotated[int | None, typer.Option(help="The version.", min=1)]
Reason = Annotated[str, typer.Option(help="Why; it is written into the journal.")]
By = Annotated[str | None, typer.Option(help="Who asks for it. Default: the name you are logged in with.")]


@app.command("list")
def list_models() -> None:
    """Every registered model, and who is in staging and production."""
    settings = prepared_settings()
    from cli import stages
    from ledgerline.dagster.resources import registry_of

    with _clear_errors():
        stages.print_models(wide_console(), registry_of(settings))


@app.command()
def show(model: Model = MODEL, version: Version = None) -> None:
    """The versions of a model with their stages; with --version, all that is known of one."""
    settings = prepared_settings()
    from cli import stages
    from ledgerline.dagster.resources import registry_of

    with _clear_errors():
        stages.print_model(wide_console(), registry_of(settings), model, version)


@app.command()
def history(
    model: Model = MODEL,
    at: Annotated[
        str | None,
        typer.Option(help="Who was in production at 2026-11-03T14:05 (local time), or 30m, 12h, 7d ago."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Every judgement, approval and move of an alias: who, when, why; also those made outside."""
    settings = prepared_settings()
    from cli import stages
    from ledgerline.dagster.resources import registry_of

    with _clear_errors():
        moment = _moment(at) if at is not None else None
        stages.print_history(wide_console(), registry_of(settings), model, moment, as_json)


@app.command()
def compare(
    model: Model = MODEL,
    version: Annotated[
        int | None, typer.Option(help="The version. Default: the one in staging.", min=1)
    ] = None,
    against: Annotated[
        int | None, typer.Option(help="Compared with this one. Default: the one in production.", min=1)
    ] = None,
    month: Annotated[
        str | None, typer.Option(help="On flights of this month, 2013-07. Default: the version's own.")
    ] = None,
) -> None:
    """Compare a version with the one in production, and judge it by every rule; nothing is promoted.

    Exits with 1 when a rule is broken.
    """
    _require_job(model)
    settings = prepared_settings()
    from assets.partitions import MONTHS
    from cli.partition_keys import understood

    with _clear_errors():
        key = understood(MONTHS, month, model) if month is not None else None
    _compare(settings, _given(version=version, against=against, partition=key))


@app.command()
def replay(
    model: Model = MODEL,
    since: Annotated[
        str, typer.Option(help="What was asked since 2026-11-03T14:05 (local time), or 30m, 12h, 7d ago.")
    ] = "24h",
    version: Annotated[
        int | None, typer.Option(help="The version. Default: the one in staging.", min=1)
    ] = None,
) -> None:
    """Compare a version with the one in production, and ask it, too, what production was really asked.

    What it says is part of the evidence, and no rule is about it. Exits with 1 when a rule is broken.
    """
    _require_job(model)
    settings = prepared_settings()
    with _clear_errors():
        moment = _moment(since)
    _compare(settings, _given(version=version, replay_since=moment.isoformat()))


@app.command()
def promote(
    model: Model = MODEL,
    version: Annotated[
        int | None, typer.Option(help="The version. Default: the one in staging.", min=1)
    ] = None,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Let production be a version that was compared with the one there now, and kept every rule."""
    _change_production(model, action="promote", version=version, reason=reason, by=by)


@app.command()
def rollback(
    model: Model = MODEL,
    to: Annotated[
        int | None,
        typer.Option(help="Back to this version. Default: the one production was promoted over.", min=1),
    ] = None,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Take production back to the version before."""
    _change_production(model, action="rollback", version=to, reason=reason, by=by)


@app.command()
def approve(
    version: Annotated[int, typer.Option(help="The version that waits.", min=1)],
    model: Model = MODEL,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Agree, as a person, to the promotion of a version that kept every rule."""
    settings = prepared_settings()
    from ledgerline.dagster.resources import registry_of

    with _clear_errors():
        approval = registry_of(settings).approve(model, version, by or _user(), reason)
    console = Console()
    console.print(
        f"{model} version {version}, approved by {approval.by} on evidence {approval.evidence[:12]}…"
    )
    console.print(
        "With `ledgerline dev` or a Dagster daemon running it is promoted within seconds. Without: "
        f"`ledgerline registry promote {model} --version {version}`",
        soft_wrap=True,
    )


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
    from cli import webhooks

    with _clear_errors():
        accepted = webhooks.register(Console(), settings.tracking_uri, url, settings.webhook_secret, name)
    raise typer.Exit(0 if accepted else 1)


@app.command()
def listen(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Take MLflow's webhooks, check their signatures, and wake the sensors; until Ctrl-C."""
    settings = prepared_settings()
    from cli import webhooks
    from ledgerline.ledger.storages.instances import own_instance

    with _clear_errors(), own_instance(settings.dagster_home) as observed:
        webhooks.listen(Console(), observed.instance, settings.webhook_secret, host, settings.webhook_port)


def _compare(settings: "Settings", config: Mapping[str, object]) -> Never:
    from cli import releases, runs

    loaded = loaded_project(settings)
    with runs.local_instance(settings) as instance, runs.runner(instance, settings, loaded) as runner:
        release = releases.compare(runner, config)
        runner.show([release.outcome.run_id])
        releases.report(runner, release)
    raise typer.Exit(0 if release.is_as_wanted else 1)


def _change_production(model: str, action: str, version: int | None, reason: str, by: str | None) -> None:
    _require_job(model)
    settings = prepared_settings()
    from cli import releases, runs

    config = _given(action=action, version=version, reason=reason, approver=by or _user())
    loaded = loaded_project(settings)
    with runs.local_instance(settings) as instance, runs.runner(instance, settings, loaded) as runner:
        release = releases.promote(runner, config)
        runner.show([release.outcome.run_id])
        releases.report(runner, release)
    raise typer.Exit(0 if release.is_as_wanted else 1)


def _require_job(model: str) -> None:
    if model != MODEL:
        stop(ValueError(f"No job promotes {model!r}; {MODEL} has one. Its aliases can be moved in MLflow."))


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _user() -> str:
    import getpass

    return getpass.getuser()


def _moment(text: str) -> datetime:
    from cli.observing import moment

    return moment(text)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What a person can mend, without a stack trace."""
    from cli.observing import ObservingError
    from cli.partition_keys import UnknownPartitionError
    from cli.webhooks import WebhookError
    from ledgerline.dagster.failures import PermanentFailure
    from ledgerline.ledger.storages.config import InstanceError
    from ledgerline.registry.moves import MoveRefusedError

    try:
        yield
    except (
        PermanentFailure,
        MoveRefusedError,
        InstanceError,
        ObservingError,
        UnknownPartitionError,
        WebhookError,
    ) as error:
        stop(error)
