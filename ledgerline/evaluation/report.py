"""Renders the HTML page of a comparison from the document that is sealed as evidence."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ledgerline.evaluation.readable import number

TEMPLATE = Path(__file__).with_name("report.html")


def render(
    document: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    replay_lines: Sequence[tuple[str, Any]] | None = None,
) -> str:
    """Render the page of a comparison from the evidence before it is sealed, and PNGs by name.

    The lines of a replay of logged requests are pairs of name and value; they are None without a replay.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["gate"] = _gate
    compared = document["comparison"]
    return environment.from_string(TEMPLATE.read_text()).render(
        title=f"{document['model']} version {document['version']} against {compared['production_name']}",
        e=document,
        c=compared,
        outcomes=_outcomes(compared["facts"]),
        replay=replay_lines,
        confidence=f"{100 * (1 - compared['alpha']):g} %",
        pictures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
    )


def _outcomes(facts: Mapping[str, Any]) -> str:
    """Describe the outcomes in a clause that begins with a comma."""
    match dict(facts):
        case {"positives": int(positives)}:
            return f", {positives:,} of them positive"
        case {"rows_by_class": counts}:
            return ", " + ", ".join(f"{count:,} of them {label}" for label, count in counts.items())
        case {"mean": mean, "standard_deviation": spread}:
            return f", with a mean outcome of {number(mean)} and a standard deviation of {number(spread)}"
        case others:
            return "".join(f", {name}: {value}" for name, value in others.items())


def _gate(sealed: Mapping[str, Any]) -> str:
    """Return the expression that declares a gate."""
    texts = [
        f"{name}={value['name'] if isinstance(value, Mapping) and 'name' in value else value!r}"
        for name, value in sealed.items()
        if name not in {"gate", "rule"} and value is not None
    ]
    return f"{sealed['gate']}({', '.join(texts)})"
