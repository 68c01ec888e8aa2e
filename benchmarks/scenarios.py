"""Lists all scenarios in the order in which they run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from benchmarks.context import Context, Result


@dataclass(frozen=True)
class Scenario:
    """A measurement: the function `measure_NAME` in a module of its area.

    Attributes:
        measures: Description of what it measures and compares.
        minutes: Approximate duration on two cores.
        module: Module of the area; empty if it has the name of the scenario.
    """

    area: str
    name: str
    measures: str
    minutes: int
    module: str = ""

    @property
    def measure(self) -> Callable[[Context], Sequence[Result]]:
        """Return the function that runs the scenario."""
        module = import_module(f"benchmarks.{self.area}.{self.module or self.name}")
        return getattr(module, f"measure_{self.name}")


SCENARIOS = (
    Scenario("pipelines", "commands", "Seconds and memory of `ledgerline run` and of backfills", 3),
    Scenario("pipelines", "executors", "`ledgerline run` beside Dagster's own executors", 5, "commands"),
    Scenario("observer", "rate", "From a run's event log to spans, beside Dagster reading the log", 3),
    Scenario("observer", "spans", "A span inside a step, beside OpenTelemetry's SDK", 1),
    Scenario("observer", "steps", "The same job bare, observed, with dagster-otel, with dagster-mlflow", 12),
    Scenario("observer", "latency", "From the end of a step until its span is at the collector", 2),
    Scenario(
        "observer", "dev", "The same by the sensors of `ledgerline dev`, and their idle cost", 5, "latency"
    ),
    Scenario("registry", "gate", "How often the gate promotes a model that is not better", 6),
    Scenario("registry", "comparison", "One comparison of two models for each kind of prediction", 1, "gate"),
    Scenario("registry", "polls", "One poll of all models, beside one call for each", 1, "calls"),
    Scenario("registry", "journal", "Reading and extending a journal of 1,000 promotions", 2, "calls"),
    Scenario("registry", "promotions", "Promotions, one after the other", 1, "calls"),
    Scenario("serving", "requests", "Requests with one row, beside `mlflow models serve`", 7),
    Scenario("serving", "rows", "Requests with 1,000 rows, beside `predict_proba` alone", 2, "requests"),
    Scenario("serving", "shadow", "Latency with and without a shadow", 3, "requests"),
    Scenario("serving", "swaps", "From the change of an alias to the first prediction of its version", 4),
    Scenario("serving", "loaded", "200 changes of an alias under full load", 6, "swaps"),
    Scenario("serving", "restart", "A start after `kill -9` while the registry is down", 1, "lifetime"),
    Scenario("serving", "soak", "Half an hour at half of the highest rate", 32, "lifetime"),
    Scenario("agent", "turns", "A turn of an agent, beside Ollama's client and `@mlflow.trace`", 2),
    Scenario("stack", "stack", "The whole stack: latency of spans, and 1,000 runs at once", 8, "load"),
)
