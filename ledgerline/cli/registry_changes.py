"""The commands `ledgerline registry compare`, `replay`, `promote`, `rollback` and `approve`.

For a model that the definitions release, they run the jobs that the UI and the sensors run. Any other model
can be approved and rolled back, too; the journal records the author.
"""

import uuid
from getpass import getuser
from typing import Annotated, Literal, Never

import typer
from rich.console import Console
from rich.text import Text

from ledgerline.cli.commands import loaded_project, prepared_settings

Model = Annotated[
    str | None,
    typer.Argument(help="Registered model. Default: the only one that the definitions release."),
]
OfStaging = Annotated[int | None, typer.Option(help="Version. Default: the one in staging.", min=1)]
Reason = Annotated[str, typer.Option(help="Reason, which the journal records.")]
By = Annotated[str | None, typer.Option(help="Person who requests it. Default: your login name.")]


def compare(
    model: Model = None,
    *,
    version: OfStaging = None,
    against: Annotated[
        int | None, typer.Option(help="Version to compare with. Default: the one in production.", min=1)
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="Partition whose evaluation rows are used. Default: the version's own."),
    ] = None,
) -> None:
    """Compare a version with the one in production, and evaluate it by every gate; nothing is promoted.

    The exit code is 1 if a gate refuses the version.
    """
    _run("compare", model, partition, version=version, against=against)


def replay(
    model: Model = None,
    *,
    since: Annotated[
        str, typer.Option(help="Replay requests since 2026-11-03T14:05 (local time), or 30m, 12h, 7d ago.")
    ] = "24h",
    version: OfStaging = None,
) -> None:
    """Compare a version with the one in production, and replay logged requests to production with it.

    The replay is part of the evidence, and no gate evaluates it. The exit code is 1 if a gate refuses the
    version.
    """
    from ledgerline.cli.observing import moment

    _run("compare", model, version=version, replay_since=moment(since).isoformat())


def promote(model: Model = None, *, version: OfStaging = None, reason: Reason = "", by: By = None) -> None:
    """Promote a version that was compared with the current one in production, and passed every gate."""
    _run("promote", model, action="promote", version=version, reason=reason, approver=by or getuser())


def rollback(
    model: Model = None,
    *,
    to: Annotated[
        int | None,
        typer.Option(help="Version to go back to. Default: the one production was promoted over.", min=1),
    ] = None,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Move production back to the version before. This works for every registered model."""
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.dagster.released_models.names import released_models

    if model is not None and model not in released_models(loaded.defs):
        _rollback_alone(model, to, reason, by or getuser())
        return
    _run("promote", model, action="rollback", version=to, reason=reason, approver=by or getuser())


def approve(
    version: Annotated[int, typer.Option(help="Version that waits for approval.", min=1)],
    model: Model = None,
    *,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Approve, as a person, the promotion of a version that passed every gate.

    This works for every registered model.
    """
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli.released import HOW, the_only_one
    from ledgerline.dagster.released_models.names import released_models
    from ledgerline.dagster.resources import registry_of

    name = model or the_only_one(loaded)
    approval = registry_of(settings).model(name).approve(version, by or getuser(), reason)
    console = Console()
    console.print(
        f"{name} version {version} is approved by {approval.by} on evidence {approval.evidence[:12]}…"
    )
    if name in released_models(loaded.defs):
        console.print(
            "A running `ledgerline dev` or Dagster daemon promotes it within seconds. Otherwise run "
            f"`ledgerline registry promote {name} --version {version}`.",
            soft_wrap=True,
        )
    else:
        console.print(Text(f"No job promotes it. {HOW} in {loaded.project.module}."), soft_wrap=True)


def _rollback_alone(model: str, to: int | None, reason: str, by: str) -> None:
    """Move production of a model back without a job."""
    from ledgerline.dagster.resources import registry_of
    from ledgerline.registry.promotion import Request
    from ledgerline.registry.stages import PRODUCTION

    settings = prepared_settings()
    request = Request(by=by, reason=reason, run_id="", id=str(uuid.uuid4()))
    moved = registry_of(settings).model(model).rollback(to, request)
    Console().print(f"{PRODUCTION} of {model}: version [bold]{moved.version}[/]")


def _run(
    job: Literal["compare", "promote"], model: str | None, partition: str | None = None, **given: object
) -> Never:
    """Run a job that releases a model with the values that are given, and end with its exit status."""
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli import releases, runs
    from ledgerline.cli.released import partition_of_versions, released_model

    names = released_model(loaded, model)
    config = {name: value for name, value in given.items() if value is not None}
    with runs.local_instance(settings) as instance, runs.runner(instance, settings, loaded) as runner:
        if partition is not None:
            config["partition"] = partition_of_versions(loaded, names, partition)
        run = releases.compare if job == "compare" else releases.promote
        release = run(runner, names, config)
        runner.export([release.outcome.run_id])
        releases.report(runner, release)
    raise typer.Exit(0 if release.is_as_wanted else 1)
