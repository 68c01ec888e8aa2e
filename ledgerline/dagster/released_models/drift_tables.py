"""Metadata of drift for Dagster's UI: numbers, which it plots over time, and tables."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import dagster as dg

from ledgerline.dagster.released_models.drift_records import Drift


def drift_metadata(drift: Drift, evaluated_by: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the numbers of a record, with tables of its predictions and of its features.

    Args:
        drift: Record.
        evaluated_by: Numbers that a check evaluates, by feature; None if no check evaluates features.
    """
    numbers = {name: value for name, value in asdict(drift).items() if isinstance(value, int | float | str)}
    tables = {"scores": dg.MetadataValue.table([_score(drift, name) for name in drift.score_psi])}
    if drift.feature_psi:  # Dagster refuses empty tables
        features = [_feature(drift, name, evaluated_by) for name in drift.feature_psi]
        tables["feature_psi"] = dg.MetadataValue.table(features)
    return {**numbers, "largest_score_psi": drift.largest_score_psi, **tables}


def outcomes_table(predicted: Mapping[str, float], observed: Mapping[str, float]) -> dg.TableMetadataValue:
    """Return predicted and observed values, for rows whose outcome is known."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {"prediction": name, "predicted": f"{value:.6g}", "observed": f"{observed[name]:.6g}"}
            )
            for name, value in predicted.items()
        ]
    )


def _score(drift: Drift, name: str) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "prediction": name,
            "psi": round(drift.score_psi[name], 4),
            "mean over training rows": f"{drift.mean_training_score[name]:.6g}",
            "mean": f"{drift.mean_score[name]:.6g}",
        }
    )


def _feature(drift: Drift, name: str, evaluated_by: Mapping[str, str] | None) -> dg.TableRecord:
    gaps = round(drift.gaps_psi[name], 4) if name in drift.gaps_psi else ""
    indices = {"feature": name, "psi": round(drift.feature_psi[name], 4), "psi of gaps": gaps}
    return dg.TableRecord(
        indices if evaluated_by is None else {**indices, "evaluated by": evaluated_by[name]}
    )
