"""Reads the metrics of programs as Prometheus does."""

import re
import urllib.request
from collections.abc import Mapping

# The header that Prometheus sends. The alert rules use the names in the response; prometheus_client would add
# "_total" to those of counters.
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{.*\})? (?P<value>\S+)", re.MULTILINE)

DECLARED = re.compile(r"^# TYPE (\w+)", re.MULTILINE)


def metrics_of(url: str, token: str | None = None) -> Mapping[str, float]:
    """Return the sum of the samples of each name, over all labels."""
    found: dict[str, float] = {}
    for sample in SAMPLE.finditer(_page(url, token)):
        found[sample["name"]] = found.get(sample["name"], 0.0) + float(sample["value"])
    return found


def samples_of(url: str, name: str, labels: Mapping[str, str]) -> list[float]:
    """The samples of a name that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return [
        float(sample["value"])
        for sample in SAMPLE.finditer(_page(url, None))
        if sample["name"] == name and all(each in sample[0] for each in wanted)
    ]


def names_of(url: str, token: str | None = None) -> set[str]:
    """The names of all samples, and of those that there will be."""
    text = _page(url, token)
    return {sample["name"] for sample in SAMPLE.finditer(text)} | set(DECLARED.findall(text))


def _page(url: str, token: str | None) -> str:
    headers = {"Accept": ACCEPT} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/metrics", headers=headers), timeout=10
    ) as page:
        return page.read().decode()
