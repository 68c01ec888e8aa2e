"""Compares a trace in a backend with the spans that it must have."""

import json
from typing import Any

from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace


def differences(trace: ReceivedTrace, expected: list[ReceivedSpan]) -> list[str]:
    """Return how the spans in a backend differ from the expected ones; empty if they are equal."""
    found = trace.by_id
    wanted = {span.span_id: span for span in expected}
    sentences = [f"{wanted[span_id].name} is missing" for span_id in wanted.keys() - found.keys()]
    sentences += [f"{found[span_id].name} is too much" for span_id in found.keys() - wanted.keys()]
    sentences += [f"{span.name} is there {trace.times[span.span_id]} times" for span in trace.repeated]
    for span_id in wanted.keys() & found.keys():
        one, other = _comparable(wanted[span_id]), _comparable(found[span_id])
        sentences += [
            f"{wanted[span_id].name}: {part} is {other[part]!r}, not {one[part]!r}"
            for part in one
            if one[part] != other[part]
        ]
    return sorted(sentences)


def _comparable(span: ReceivedSpan) -> dict[str, Any]:
    return {
        "trace": span.trace_id,
        "parent": span.parent_id,
        "name": span.name,
        "times": (span.started, span.ended),
        "failed": span.failed,
        "attributes": {name: _plain(value) for name, value in span.attributes.items()},
        "events": {
            name: {key: _plain(value) for key, value in attributes.items()}
            for name, attributes in span.events.items()
        },
        "links": sorted(span.links),
    }


def _plain(value: object) -> object:
    """A value as all of them have it: Jaeger's storage makes text of lists."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return list(value) if isinstance(value, tuple) else value
