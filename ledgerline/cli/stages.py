"""Prints registered models, their versions and their journals, for `ledgerline registry`."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.registry.history import (
    OUTSIDE,
    AliasPeriod,
    Approval,
    Entry,
    Evaluation,
    History,
    Move,
    version_text,
)
from ledgerline.registry.inconsistencies import Snapshot
from ledgerline.registry.provenance import PARTITION_TAG, TRAINED_ON_TAG, described, partition_of
from ledgerline.registry.registry import Model, Registry
from ledgerline.registry.stages import ALIASES, PRODUCTION
from ledgerline.registry.versions import MONTH_TAG, SHA256_TAG, TRAINING_DAYS_TAG, Version

MISSING = Text("missing", style="dim")
ROW_TAGS = (SHA256_TAG, RUN_ID_TAG)
DESCRIBED_TAGS = {PARTITION_TAG, MONTH_TAG, TRAINED_ON_TAG, TRAINING_DAYS_TAG}

# Only metrics are written as decimal fractions at registration.
METRIC = re.compile(r"-?\d+\.\d+")
MAX_METRICS = 4
MAX_CHARACTERS = 6  # of a metric


def print_models(console: Console, registry: Registry) -> None:
    """Print every registered model, with the versions that its aliases name."""
    alias_states = registry.alias_states()
    table = Table("model", *ALIASES, "versions", "journal entries")
    for name, alias_state in sorted(alias_states.items()):
        numbers = [str(alias_state.aliases.get(alias, "")) for alias in ALIASES]
        versions = str(len(registry.model(name).versions()))
        table.add_row(name, *numbers, versions, str(alias_state.journal_entry or ""))
    console.print(table if alias_states else "No model is registered yet: run the job that trains one.")


def print_model(console: Console, model: Model, number: int | None) -> None:
    """Print the versions of a model, or one version with everything that is recorded of it."""
    snapshot = model.snapshot()
    if number is None:
        _print_versions(console, model, snapshot.history)
    else:
        _print_version(console, model.version(number), snapshot.history)
    _print_differences(console, model, snapshot)


def print_history(console: Console, model: Model, at: datetime | None, as_json: bool) -> None:
    """Print every entry of the journal, or the version in production at a moment."""
    snapshot = model.snapshot()
    history = snapshot.history
    if as_json:
        document: dict[str, Any] = (
            {"entries": [_document(entry) for entry in history.entries]}
            if at is None
            else {"periods": [_period_document(period) for period in history.periods_at(at)]}
        )
        document["differences"] = [asdict(difference) for difference in snapshot.differences]
        console.print_json(json.dumps(document, default=datetime.isoformat))
        return
    if at is not None:
        _print_periods(console, model.name, at, history.periods_at(at))
    else:
        _print_entries(console, model, history)
    _print_differences(console, model, snapshot)


def print_reconciliation(console: Console, model: Model) -> None:
    """Reconcile the journal of a model with its aliases, and print what was recorded."""
    recorded = model.reconcile().recorded
    for entry in recorded:
        console.print(Text(f"Recorded as entry {entry.number}: {_text_of(entry)}"), soft_wrap=True)
    if not recorded:
        console.print(Text(f"Nothing differed: the aliases of {model.name} match its journal."))


def _print_versions(console: Console, model: Model, history: History) -> None:
    versions = model.versions()
    metrics = _metric_names(versions)
    titles = [metric.replace("_", " ") for metric in metrics]
    columns = ("version", "stage", "partition", "trained on", *titles, "evaluated", "registered (UTC)")
    table = Table(*(Column(Text(column)) for column in columns), title=Text(model.name))
    for version in versions:
        evaluation = history.evaluation(version.number)
        table.add_row(
            str(version.number),
            history.stage_of(version.number) or "",
            _text(partition_of(version)),
            _trained_on(version),
            *(_metric(version, metric) for metric in metrics),
            "" if evaluation is None else _decision(evaluation),
            f"{version.created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def _print_version(console: Console, version: Version, history: History) -> None:
    console.print(f"[bold]{version.name}[/] version [bold]{version.number}[/]")
    table = Table(box=None, show_header=False)
    table.add_row("stage", history.stage_of(version.number) or "none")
    table.add_row("registered", f"{version.created_at:%Y-%m-%d %H:%M:%S} UTC")
    table.add_row("training run", version.run_id or MISSING)
    table.add_row("partition", _text(partition_of(version)))
    table.add_row("trained on", _trained_on(version))
    for tag in ROW_TAGS:
        table.add_row(tag, _text(version.tags.get(tag)))
    for tag, value in sorted(version.tags.items()):
        if tag not in {*ROW_TAGS, *DESCRIBED_TAGS}:
            table.add_row(tag, Text(value))
    console.print(table)
    for entry in history.entries:
        if _is_about(entry, version.number):
            line = f"{_when(entry)}  {_text_of(entry)}  by {_by(entry)}  {_reason(entry)}"
            console.print(Text(line.rstrip()), soft_wrap=True)


def _print_entries(console: Console, model: Model, history: History) -> None:
    for earlier in model.journals_of_earlier_models():
        console.print(f"An earlier model had this name; its journal is the MLflow experiment {earlier!r}.")
    if not history.entries:
        console.print(f"The journal of {model.name} has no entries.")
        return
    # In 80 columns, "by" and "reason" must remain readable, so the others wrap.
    widths = {"#": None, "when (UTC)": 10, "what": None, "by": 12, "reason": 16}
    columns = (Column(name, min_width=width) for name, width in widths.items())
    table = Table(*columns, title=Text(f"Journal of {model.name}"), title_justify="left")
    for entry in history.entries:
        cells = (str(entry.number), _when(entry), _text_of(entry), _by(entry), _reason(entry))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _print_differences(console: Console, model: Model, snapshot: Snapshot) -> None:
    if snapshot.differences:
        console.print(Text(f"{'; '.join(str(each) for each in snapshot.differences)}."), soft_wrap=True)
        records = f"`ledgerline registry reconcile {model.name}` records it."
        console.print(Text(f"Aliases were changed outside the journal; {records}"), soft_wrap=True)


def _print_periods(console: Console, name: str, at: datetime, periods: Sequence[AliasPeriod]) -> None:
    moment = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if not periods:
        console.print(f"No version of {name} is known to have been in {PRODUCTION} at {moment}.")
    if len(periods) > 1:
        console.print(f"{PRODUCTION} was moving at {moment}, and named one of these versions.")
    for period in periods:
        until = f"until {_precise(period.until)}" if period.until else "and still is"
        console.print(
            f"{name} {version_text(period.version)} was in {PRODUCTION} at {moment}: since "
            f"{_precise(period.since)} {until} (entry {period.entry.number}: {_text_of(period.entry)} by "
            f"{period.entry.record.by})",
            soft_wrap=True,
        )


def _text(value: str | None) -> Text:
    return Text(value) if value else MISSING


def _trained_on(version: Version) -> Text:
    recorded = version.tags.get(TRAINED_ON_TAG) or version.tags.get(TRAINING_DAYS_TAG)
    return _text(described(recorded) if recorded else None)


def _metric_names(versions: Sequence[Version]) -> list[str]:
    """Return the metrics that most versions have, sorted by name."""
    counts = Counter(
        name for version in versions for name, value in version.tags.items() if METRIC.fullmatch(value)
    )
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MAX_METRICS])


def _metric(version: Version, name: str) -> Text:
    value = version.tags.get(name, "")
    return _text(value[:MAX_CHARACTERS] if METRIC.fullmatch(value) else None)


def _is_about(entry: Entry, number: int) -> bool:
    record = entry.record
    if isinstance(record, Move):
        return number in (record.from_version, record.to_version)
    return number == record.version


def _when(entry: Entry) -> str:
    at = entry.end.at if entry.end is not None else entry.record.at
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _text_of(entry: Entry) -> str:
    record = entry.record
    if isinstance(record, Evaluation):
        against = "the baseline" if record.against is None else f"version {record.against}"
        return f"version {record.version} against {against}: {_decision(record)}"
    if isinstance(record, Approval):
        return f"version {record.version} approved"
    ended = "" if entry.end and entry.end.moved else " (not carried out)" if entry.end else " (under way)"
    moved = f"{record.from_version or 'none'} -> {record.to_version or 'none'}"
    return f"{record.alias}: {moved}, {'changed outside' if record.cause == OUTSIDE else record.cause}{ended}"


def _by(entry: Entry) -> str:
    """Return the person or program, with run ids as short as in the Dagster UI."""
    return re.sub(r"(run [0-9a-f]{8})[0-9a-f-]{28}", r"\1", entry.record.by)


def _reason(entry: Entry) -> str:
    record = entry.record
    if isinstance(record, Evaluation):
        return f"failed {', '.join(record.broken_rules)}" if record.broken_rules else ""
    return record.reason


def _decision(evaluation: Evaluation) -> str:
    return "passed" if evaluation.passed else "refused"


def _document(entry: Entry) -> dict[str, Any]:
    kind = type(entry.record).__name__.lower()
    document = {"entry": entry.number, "kind": kind, **asdict(entry.record)}
    if entry.end is not None:
        document |= {"ended_at": entry.end.at, "moved": entry.end.moved}
    return document


def _period_document(period: AliasPeriod) -> dict[str, Any]:
    names = "version", "since", "since_at_earliest", "until"
    return {**{name: getattr(period, name) for name in names}, "entry": _document(period.entry)}


def _precise(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}"
