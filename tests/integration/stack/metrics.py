"""What programs say of themselves, for Prometheus."""

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families


def metrics_of(url: str, token: str | None = None) -> Mapping[str, float]:
    """The sums of all samples by their names, over all labels."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    request = urllib.request.Request(f"{url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
