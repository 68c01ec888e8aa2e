"""What `ledgerline registry list`, `show` and `history` print."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ledgerline.cli import version_columns
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.registry.history import OUTSIDE, Approval, Entry, Evaluation, History, Holding, Move
from ledgerline.registry.moves import UnderWayError, stage_of
from ledgerline.registry.provenance import PARTITION_TAG, TRAINED_ON_TAG
from ledgerline.registry.stages import ALIASES, PRODUCTION
from ledgerline.registry.versions import MONTH_TAG, SHA256_TAG, TRAINING_DAYS_TAG, Version

MISSING = Text("missing", style="dim")
SHOWN_TAGS = (SHA256_TAG, RUN_ID_TAG)
SHOWN_IN_WORDS = {PARTITION_TAG, MONTH_TAG, TRAINED_ON_TAG, TRAINING_DAYS_TAG}


def print_models(console: Console, registry: ModelRegistryResource) -> None:
    """Every registered model, and who carries its aliases."""
    alias_states = registry.alias_states()
    table = Table("model", *ALIASES, "versions", "journal entries")
    for name, alias_state in sorted(alias_states.items()):
        held = [str(alias_state.aliases.get(alias, "")) for alias in ALIASES]
        table.add_row(name, *held, str(len(registry.versions(name))), str(alias_state.journal_entry or ""))
    console.print(table if alias_states else "No model is registered yet: run the job that trains one.")


def print_model(console: Console, registry: ModelRegistryResource, name: str, number: int | None) -> None:
    """The versions of a model, or one of them with all it says of itself."""
    history = settled(registry, name)
    if number is not None:
        _print_version(console, registry.version(name, number), history)
        return
    versions = registry.versions(name)
    metrics = version_columns.metric_names(versions)
    shown = [metric.replace("_", " ") for metric in metrics]
    columns = ("version", "stage", "partition", "trained on", *shown, "judged", "registered (UTC)")
    table = Table(*(Column(Text(column)) for column in columns), title=Text(name))
    for version in versions:
        evaluation = history.evaluation(version.number)
        evaluated = "" if evaluation is None else _decision(evaluation)
        table.add_row(
            str(version.number),
            stage_of(history, version.number) or "",
            _text(version_columns.partition(version)),
            _text(version_columns.trained_on(version)),
            *(_text(version_columns.metric(version, metric)) for metric in metrics),
            evaluated,
            f"{version.created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def print_history(
    console: Console, registry: ModelRegistryResource, name: str, at: datetime | None, as_json: bool
) -> None:
    """Every entry of the journal, or what was in production at a moment."""
    history = settled(registry, name)
    if at is not None:
        holders = history.holders_at(at)
        if as_json:
            console.print_json(json.dumps([_holding(holding) for holding in holders]))
            return
        _print_holders(console, name, at, holders)
        return
    if as_json:
        entries = [_document(entry) for entry in history.entries]
        console.print_json(json.dumps(entries))
        return
    for earlier in registry.journals_of_earlier_models(name):
        console.print(f"An earlier model had this name; its journal is the MLflow experiment {earlier!r}.")
    if not history.entries:
        console.print(f"Nothing was ever decided about {name}.")
        return
    table = Table("#", "when (UTC)", "what", "by", "reason", title=f"Journal of {name}", title_justify="left")
    for column in table.columns[1:3]:
        column.no_wrap = True
    for entry in history.entries:
        table.add_row(str(entry.number), _when(entry), _what(entry), _by(entry), _reason(entry))
    console.print(table)


def settled(registry: ModelRegistryResource, name: str) -> History:
    """The journal with what was changed outside; as it is written while somebody is moving an alias."""
    try:
        return registry.settled_history(name)
    except UnderWayError:
        return registry.history(name)


def _print_version(console: Console, version: Version, history: History) -> None:
    console.print(f"[bold]{version.name}[/] version [bold]{version.number}[/]")
    table = Table(box=None, show_header=False)
    table.add_row("stage", stage_of(history, version.number) or "none")
    table.add_row("registered", f"{version.created_at:%Y-%m-%d %H:%M:%S} UTC")
    table.add_row("training run", version.run_id or MISSING)
    table.add_row("partition", _text(version_columns.partition(version)))
    table.add_row("trained on", _text(version_columns.trained_on(version)))
    for tag in SHOWN_TAGS:
        table.add_row(tag, _text(version.tags.get(tag)))
    for tag, value in sorted(version.tags.items()):
        if tag not in {*SHOWN_TAGS, *SHOWN_IN_WORDS}:
            table.add_row(tag, Text(value))
    console.print(table)
    for entry in history.entries:
        if _is_about(entry, version.number):
            line = f"{_when(entry)}  {_what(entry)}  by {_by(entry)}  {_reason(entry)}"
            console.print(Text(line.rstrip()), soft_wrap=True)


def _print_holders(console: Console, name: str, at: datetime, holders: Sequence[Holding]) -> None:
    shown = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if not holders:
        console.print(f"No version of {name} is known to have been in {PRODUCTION} at {shown}.")
    if len(holders) > 1:
        console.print(f"{PRODUCTION} was moving at {shown}: it was one of these.")
    for holding in holders:
        version = "no version" if holding.version is None else f"version [bold]{holding.version}[/]"
        until = f"until {_precise(holding.until)}" if holding.until else "and still is"
        console.print(
            f"{name} {version} was in {PRODUCTION} at {shown}: since {_precise(holding.since)} {until} "
            f"(entry {holding.entry.number}: {_what(holding.entry)} by {holding.entry.what.by})",
            soft_wrap=True,
        )


def _text(value: str | None) -> Text:
    return Text(value) if value else MISSING


def _is_about(entry: Entry, number: int) -> bool:
    what = entry.what
    return number in ((what.from_version, what.to_version) if isinstance(what, Move) else (what.version,))


def _when(entry: Entry) -> str:
    at = entry.end.at if entry.end is not None else entry.what.at
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _what(entry: Entry) -> str:
    what = entry.what
    if isinstance(what, Evaluation):
        against = "the baseline" if what.against is None else f"version {what.against}"
        return f"version {what.version} against {against}: {_decision(what)}"
    if isinstance(what, Approval):
        return f"version {what.version} approved"
    ended = "" if entry.end and entry.end.moved else " (not carried out)" if entry.end else " (under way)"
    moved = f"{what.from_version or 'none'} -> {what.to_version or 'none'}"
    return f"{what.alias}: {moved}, {'changed outside' if what.cause == OUTSIDE else what.cause}{ended}"


def _by(entry: Entry) -> str:
    """Who, with run ids as short as the Dagster UI has them."""
    return re.sub(r"(run [0-9a-f]{8})[0-9a-f-]{28}", r"\1", entry.what.by)


def _reason(entry: Entry) -> str:
    what = entry.what
    if isinstance(what, Evaluation):
        return f"broke {', '.join(what.broken_rules)}" if what.broken_rules else ""
    return what.reason


def _decision(evaluation: Evaluation) -> str:
    return "passed" if evaluation.passed else "refused"


def _document(entry: Entry) -> dict[str, Any]:
    from dataclasses import asdict

    kind = type(entry.what).__name__.lower()
    document = {"entry": entry.number, "kind": kind, **asdict(entry.what)}
    if entry.end is not None:
        document |= {"ended_at": entry.end.at, "moved": entry.end.moved}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in document.items()
    }


def _holding(holding: Holding) -> dict[str, Any]:
    return {
        "version": holding.version,
        "since": holding.since.isoformat(),
        "since_at_earliest": holding.since_at_earliest.isoformat() if holding.since_at_earliest else None,
        "until": holding.until.isoformat() if holding.until else None,
        "entry": _document(holding.entry),
    }


def _precise(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}"
