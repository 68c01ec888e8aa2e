"""The commands `ledgerline registry compare`, `replay`, `promote`, `rollback` and `approve`.

For a model that the definitions release, they run the jobs that the UI and the sensors run. Any other model
can be approved and rolled back, too; the journal records the author.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Never

import typer
from rich.console import Console
from rich.text import Text

from ledgerline.cli.commands import loaded_project, prepared_settings

if TYPE_CHECKING:
    from ledgerline.cli.releases import Release
    from ledgerline.cli.runs import Runner
    from ledgerline.dagster.released_models.names import ReleaseNames

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
    with _runner(model) as (runner, names):
        from ledgerline.cli import releases
        from ledgerline.cli.released import partition_of_versions

        key = None if partition is None else partition_of_versions(runner.loaded, names, partition)
        config = _given(version=version, against=against, partition=key)
        _end_with(runner, releases.compare(runner, names, config))


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

    start = moment(since)
    with _runner(model) as (runner, names):
        from ledgerline.cli import releases

        config = _given(version=version, replay_since=start.isoformat())
        _end_with(runner, releases.compare(runner, names, config))


def promote(model: Model = None, *, version: OfStaging = None, reason: Reason = "", by: By = None) -> None:
    """Promote a version that was compared with the current one in production, and passed every gate."""
    with _runner(model) as (runner, names):
        from ledgerline.cli import releases

        config = _given(action="promote", version=version, reason=reason, approver=by or _user())
        _end_with(runner, releases.promote(runner, names, config))


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
        _rollback_alone(model, to, reason, by or _user())
        return
    with _runner(model) as (runner, names):
        from ledgerline.cli import releases

        config = _given(action="rollback", version=to, reason=reason, approver=by or _user())
        _end_with(runner, releases.promote(runner, names, config))


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
    approval = registry_of(settings).model(name).approve(version, by or _user(), reason)
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


@contextmanager
def _runner(model: str | None) -> "Iterator[tuple[Runner, ReleaseNames]]":
    """Prepare to run the jobs that release a model."""
    settings = prepared_settings()
    loaded = loaded_project(settings)
    from ledgerline.cli import runs
    from ledgerline.cli.released import released_model

    names = released_model(loaded, model)
    with runs.local_instance(settings) as instance, runs.runner(instance, settings, loaded) as runner:
        yield runner, names


def _end_with(runner: "Runner", release: "Release") -> Never:
    from ledgerline.cli import releases

    runner.export([release.outcome.run_id])
    releases.report(runner, release)
    raise typer.Exit(0 if release.is_as_wanted else 1)


def _given(**values: object) -> Mapping[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _user() -> str:
    import getpass

    return getpass.getuser()
