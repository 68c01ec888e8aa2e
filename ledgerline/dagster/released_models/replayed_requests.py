"""Replays logged requests with the version in staging, by means of ledgerline/requests/replay.py."""

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
from ledgerline.requests.offline_inference import ReplayedVersion
from ledgerline.requests.replay import NothingToReplayError, Replay


def replayed(
    request_log: RequestLogResource,
    staging: Contender,
    production: Contender | None,
    since: datetime,
    until: datetime,
) -> Replay:
    """Predict the logged requests of a period with the versions in staging and in production.

    Requests to which the version in staging itself responded, while it was in production, are omitted.

    Raises:
        PermanentFailure: No request is logged, a needed column is redacted, or staging returns predictions of
            another kind.
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
        result = replay.replay(others, asked_of(staging), incumbent, since, until)
    except (NothingToReplayError, NotComparableError) as error:
        raise PermanentFailure(
            f"The predictions of version {number} of {name} cannot be compared with the logged responses: "
            f"{error}",
            "Compare without a replay.",
        ) from error
    # Reading stops after MAX_ROWS, so there may be more requests than were read.
    return replace(result, is_cut=result.is_cut or len(logged) > replay.MAX_ROWS)


def asked_of(one: Contender) -> ReplayedVersion:
    """Return a version for the replay; like the service, it refuses requests without required inputs."""
    inputs = one.signature.inputs if one.signature else None
    required = inputs.required_input_names() if inputs and inputs.has_input_names() else []
    return ReplayedVersion(one.version.number, one.answer, required)


def _inputs_of(one: Contender) -> list[str]:
    """Return the names of the columns that a version takes; empty if it identifies them by position."""
    inputs = one.signature.inputs if one.signature else None
    return list(inputs.input_names()) if inputs and inputs.has_input_names() else []


def moment_of(text: str) -> datetime:
    """Parse a time of the configuration; it is in UTC unless it has a time zone.

    Raises:
        PermanentFailure: The text is not a time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise PermanentFailure(
            f"replay_since is {text!r}, which is not a time.", "Write one like 2026-01-31T12:00:00."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def metrics_of(result: Replay) -> Mapping[str, float]:
    """Return the numbers of a replay, for MLflow."""
    numbers: dict[str, float | None] = {
        "requests": result.requests,
        "rows": result.rows,
        "unscored_rows": result.unscored_rows,
        "disagreements": result.disagreements,
        "share": result.share,
        "mean_difference": result.mean_difference,
        "largest_difference": result.largest_difference,
        "recomputed_differently": result.recomputed_differently,
    }
    for name, latency in (("staging", result.staging_ms), ("production", result.production_ms)):
        if latency is not None:
            numbers |= {f"{name}_p50_ms": latency.p50_ms, f"{name}_p99_ms": latency.p99_ms}
    return {f"replay/{name}": value for name, value in numbers.items() if value is not None}


def lines_of(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a replay as lines of a table, each with a name and a value.

    Args:
        result: `Replay.as_dict`, or the same read from a record.
    """
    versions = ", ".join(f"version {name}: {rows:,}" for name, rows in result["rows_by_version"].items())
    cut = " (the latest; there are more)" if result["is_cut"] else ""
    share = "" if result["share"] is None else f" ({result['share']:.2%} of those scored)"
    because = f" ({result['problem']})" if result["problem"] else ""
    lines = [
        ("requests", f"{result['requests']:,} with {result['rows']:,} rows{cut}"),
        ("from, to", ", ".join(_minute(result[name]) for name in ("since", "until")) + " UTC"),
        ("rows answered by", versions),
        ("decided differently", f"{result['disagreements']:,}{share}"),
        (
            "mean, largest difference",
            _pair(result["mean_difference"], result["largest_difference"], "{:.4f}"),
        ),
        ("rows staging cannot score", f"{result['unscored_rows']:,}{because}"),
    ]
    if result["production_ms"] is not None:
        again = f"{result['recomputed_differently']:,} of {result['recomputed_rows']:,}"
        lines.append(("production predicts differently now", again))
    for name in ("staging", "production"):
        latency = result[f"{name}_ms"]
        if latency is not None:
            times = _pair(latency["p50_ms"], latency["p99_ms"], "{:.2f}")
            lines.append((f"{name}, ms a request", f"{times} (p50, p99 of {result['timed_requests']})"))
    return lines


def as_table(result: Replay) -> dg.TableMetadataValue:
    """Return a replay as a table for the Dagster UI."""
    lines = lines_of(result.as_dict())
    return dg.MetadataValue.table([dg.TableRecord({"": name, "replay": value}) for name, value in lines])


def _pair(one: float | None, other: float | None, form: str) -> str:
    return ", ".join("none" if value is None else form.format(value) for value in (one, other))


def _minute(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"
