"""Asks staging what production was really asked. How: ledgerline/requests/replay.py."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.contenders import Contender
from ledgerline.dagster.request_log import RequestLogResource, require_logged
from ledgerline.evaluation.disagreement import NotComparableError
from ledgerline.requests import replay
from ledgerline.requests.offline_inference import Asked
from ledgerline.requests.replay import NothingToReplayError, Replay


def replayed(
    request_log: RequestLogResource,
    staging: Contender,
    production: Contender | None,
    since: datetime,
    until: datetime,
) -> Replay:
    """Ask staging, and production again, what was asked in some time.

    What the version in staging answered itself, in production once, says nothing of it and is left out.

    Raises:
        PermanentFailure: Nothing is logged, something of it is left out on purpose, or staging gives answers
            of another kind.
    """
    name = staging.version.name
    logged = request_log.read(name, since, until, enough=replay.MAX_ROWS + 1)
    require_logged(logged, _inputs_of(staging))
    number = staging.version.number
    others = logged[logged["version"] != number]
    if others.empty:
        raise PermanentFailure(
            f"Every request to {name} since then was answered by version {number} itself.",
            "Name an earlier time, or compare without a replay.",
        )
    incumbent = asked_of(production) if production else None
    try:
        found = replay.replay(others, asked_of(staging), incumbent, since, until)
    except (NothingToReplayError, NotComparableError) as error:
        raise PermanentFailure(
            f"What version {number} of {name} says cannot be compared with what was answered: {error}",
            "Compare without a replay.",
        ) from error
    # Reading ended there, so that there may be more than was read.
    return replace(found, is_cut=found.is_cut or len(logged) > replay.MAX_ROWS)


def asked_of(one: Contender) -> Asked:
    """A version as the service has it, which refuses requests without what its signature requires."""
    inputs = one.signature.inputs if one.signature else None
    required = inputs.required_input_names() if inputs and inputs.has_input_names() else []
    return Asked(one.version.number, one.answer, required)


def _inputs_of(one: Contender) -> list[str]:
    """Return the columns that a version takes; none where it takes them by position."""
    inputs = one.signature.inputs if one.signature else None
    return list(inputs.input_names()) if inputs and inputs.has_input_names() else []


def moment_of(text: str) -> datetime:
    """A moment of the configuration; one without a time zone is UTC.

    Raises:
        PermanentFailure: It is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise PermanentFailure(
            f"replay_since is {text!r}, which is no moment.", "Write one like 2026-01-31T12:00:00."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def metrics_of(found: Replay) -> Mapping[str, float]:
    """Its numbers, for MLflow."""
    numbers: dict[str, float | None] = {
        "requests": found.requests,
        "rows": found.rows,
        "unscored_rows": found.unscored_rows,
        "disagreements": found.disagreements,
        "share": found.share,
        "mean_difference": found.mean_difference,
        "largest_difference": found.largest_difference,
        "recomputed_differently": found.recomputed_differently,
    }
    for name, latency in (("staging", found.staging_ms), ("production", found.production_ms)):
        if latency is not None:
            numbers |= {f"{name}_p50_ms": latency.p50_ms, f"{name}_p99_ms": latency.p99_ms}
    return {f"replay/{name}": value for name, value in numbers.items() if value is not None}


def lines_of(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A replay as lines of a table: what, and how it is, as texts.

    Args:
        found: `Replay.as_dict`, or the same read from a record.
    """
    versions = ", ".join(f"version {name}: {rows:,}" for name, rows in found["rows_by_version"].items())
    cut = " (the latest; there are more)" if found["is_cut"] else ""
    share = "" if found["share"] is None else f" ({found['share']:.2%} of those scored)"
    decided = f"{found['disagreements']:,}{share}"
    because = f" ({found['problem']})" if found["problem"] else ""
    lines = [
        ("requests", f"{found['requests']:,} with {found['rows']:,} rows{cut}"),
        ("from, to", ", ".join(_minute(found[name]) for name in ("since", "until")) + " UTC"),
        ("rows answered by", versions),
        ("decided differently", decided),
        ("mean, largest difference", _pair(found["mean_difference"], found["largest_difference"], "{:.4f}")),
        ("rows staging cannot score", f"{found['unscored_rows']:,}{because}"),
    ]
    if found["production_ms"] is not None:
        again = f"{found['recomputed_differently']:,} of {found['recomputed_rows']:,}"
        lines.append(("production says otherwise now", again))
    for name in ("staging", "production"):
        latency = found[f"{name}_ms"]
        if latency is not None:
            shown = _pair(latency["p50_ms"], latency["p99_ms"], "{:.2f}")
            lines.append((f"{name}, ms a request", f"{shown} (p50, p99 of {found['timed_requests']})"))
    return lines


def as_table(found: Replay) -> dg.TableMetadataValue:
    """A replay, for the Dagster UI."""
    lines = lines_of(found.as_dict())
    return dg.MetadataValue.table([dg.TableRecord({"": what, "replay": value}) for what, value in lines])


def _pair(one: float | None, other: float | None, form: str) -> str:
    return ", ".join("none" if value is None else form.format(value) for value in (one, other))


def _minute(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"
