"""Creates OpenTelemetry's collections of attributes, events and links with the number of dropped ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.util import BoundedList


def attributes_without(attributes: Mapping[str, Any], dropped: int = 0) -> Mapping[str, Any]:
    """Return attributes with the number of dropped ones."""
    if not dropped:
        return attributes
    counted = BoundedAttributes(attributes=attributes)
    counted.dropped = dropped
    return counted


def parts_without(parts: Sequence[Any], dropped: int) -> Sequence[Any]:
    """Return events or links with the number of dropped ones."""
    if not dropped:
        return parts
    counted = BoundedList.from_seq(None, parts)
    counted.dropped = dropped
    return counted
