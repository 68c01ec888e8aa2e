"""How a comparison is shown: as one HTML page, for MLflow, and as tables, for the Dagster UI."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets import requests_replay
from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.policy import Ruling

TEMPLATE = Path(__file__).with_name("comparison_report.html")


def render(document: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page of a comparison.

    Args:
        document: What is sealed as evidence.
        pictures: PNG by name.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["number"] = _shown
    compared = document["comparison"]
    return environment.from_string(TEMPLATE.read_text()).render(
        title=f"{document['model']} version {document['version']} against {compared['production_name']}",
        e=document,
        c=compared,
        replay=requests_replay.lines_of(document["replay"]) if document["replay"] else None,
        confidence=f"{1 - compared['alpha']:.0%}",
        pictures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
    )


def metrics_table(compared: Comparison) -> dg.TableMetadataValue:
    """Every metric of both, with the interval of the gain."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "metric": found.metric,
                    "staging": _shown(found.staging),
                    compared.production_name: _shown(found.production),
                    "gain": _shown(found.gain),
                    "from": _shown(found.low),
                    "to": _shown(found.high),
                }
            )
            for found in compared.differences
        ]
    )


def rules_table(rulings: Sequence[Ruling]) -> dg.TableMetadataValue:
    """Every rule, whether it is kept, and why."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {"rule": found.rule, "kept": "yes" if found.passed else "NO", "because": found.text}
            )
            for found in rulings
        ]
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
