"""Runs the jobs that compare, promote and roll back, for the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from rich.table import Table
from rich.text import Text

from ledgerline.cli.runs import Outcome, Runner
from ledgerline.dagster.released_models.comparison import EvaluatedVersion
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.released_models.production import DECISION, IN_PLACE, REFUSED
from ledgerline.dagster.released_models.replayed_requests import lines_of
from ledgerline.dagster.resources import registry_of
from ledgerline.dagster.storage.io_managers import open_records
from ledgerline.evaluation.rulings import Ruling
from ledgerline.registry.stages import PRODUCTION


@dataclass(frozen=True)
class Release:
    """The result of a run that compares or promotes.

    Attributes:
        evaluated: Comparison that the run made; None if it made no comparison.
        production: Version in production afterwards, or None.
        not_moved: Reasons why production was not moved, by decision (released_models/production.py); empty if
            it was moved, no move was requested, or the run failed.
    """

    names: ReleaseNames
    outcome: Outcome
    evaluated: EvaluatedVersion | None
    production: int | None
    not_moved: Mapping[str, str]

    @property
    def is_refused(self) -> bool:
        """True if a gate refused the version, which is a result and not a failure."""
        return REFUSED in self.not_moved or (self.evaluated is not None and not self.evaluated.passed)

    @property
    def is_as_wanted(self) -> bool:
        """True if the run completed the request; a version that waits for approval counts as complete."""
        return self.outcome.success and not self.is_refused and IN_PLACE not in self.not_moved


def compare(runner: Runner, names: ReleaseNames, config: Mapping[str, Any]) -> Release:
    """Compare two versions, and evaluate the first."""
    return _run(runner, names, names.compare_job, {names.comparison_op: config})


def release(runner: Runner, names: ReleaseNames, version: int | None) -> Release:
    """Compare a version, or the one in staging, with production; promote it if it passes every gate."""
    config = {} if version is None else {"version": version}
    ops = {names.comparison_op: config, names.production_op: config}
    return _run(runner, names, names.release_job, ops)


def promote(runner: Runner, names: ReleaseNames, config: Mapping[str, Any]) -> Release:
    """Promote a version whose evidence allows it, or roll back."""
    return _run(runner, names, names.promote_job, {names.production_op: config})


def report(runner: Runner, release: Release) -> None:
    """Print the replay, the ruling of each gate, and the version in production."""
    console = runner.console
    if release.evaluated is not None:
        if release.evaluated.replay is not None:
            console.print()
            console.print(_replay_table(release.evaluated.replay))
        console.print()
        console.print(_rulings_table(release.names.model, release.evaluated))
    elif not release.outcome.success:
        runner.report_failure(release.outcome)
        return
    version = "no version" if release.production is None else f"version [bold]{release.production}[/]"
    for reason in release.not_moved.values():
        console.print(Text(reason), soft_wrap=True)
    if not release.outcome.success:
        runner.report_failure(release.outcome)
    elif release.is_refused:
        console.print(f"[bold red]Refused.[/] {PRODUCTION} stays with {version}.")
    else:
        console.print(f"{PRODUCTION} of {release.names.model}: {version}")


def _run(
    runner: Runner, names: ReleaseNames, job_name: str, config: Mapping[str, Mapping[str, Any]]
) -> Release:
    given = {"ops": {name: {"config": values} for name, values in config.items()}}
    outcome = runner.execute(job_name, config=given)
    evaluated = None
    if any(step.key == names.comparison_op and step.state == "done" for step in outcome.steps):
        evaluated = open_records(runner.settings.data).read(names.comparison, None, EvaluatedVersion)
    version = registry_of(runner.settings).model(names.model).version_with_alias(PRODUCTION)
    not_moved = _not_moved(runner.instance, outcome.run_id)
    return Release(names, outcome, evaluated, version.number if version else None, not_moved)


def _not_moved(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION).records
    return {
        str(each.metadata[DECISION].value): each.description or ""
        for record in records
        if (each := record.asset_observation) is not None and DECISION in each.metadata
    }


def _replay_table(replay: Mapping[str, Any]) -> Table:
    table = Table(title="Replay of logged requests", title_justify="left", show_header=False)
    for name, value in lines_of(replay):
        table.add_row(name, Text(value))
    return table


def _rulings_table(model: str, evaluated: EvaluatedVersion) -> Table:
    against = "the baseline" if evaluated.against is None else f"version {evaluated.against}"
    title = f"{model} version {evaluated.version} against {against}, on {evaluated.rows:,} rows"
    table = Table("gate", "passed", "reason", title=title, title_justify="left", show_lines=True)
    for ruling in (Ruling(**fields) for fields in evaluated.rulings):
        passed = "[green]yes[/]" if ruling.passed else "[bold red]no[/]"
        table.add_row(ruling.rule, passed, Text(ruling.text))
    return table
