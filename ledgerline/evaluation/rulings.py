"""Gates, what they are about, and what comes of them. The gates that come with the library: gates.py."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ledgerline.evaluation.comparison import Comparison
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError


@dataclass(frozen=True)
class Latencies:
    """How long one row takes.

    Attributes:
        staging_ms: The fastest of many predictions by staging, in milliseconds.
        production_ms: The same of production; None where there is none.
    """

    staging_ms: float
    production_ms: float | None

    def __post_init__(self) -> None:
        for name in ("staging_ms", "production_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a time above 0.")


@dataclass(frozen=True)
class Findings:
    """All that gates are about.

    Attributes:
        comparison: Both models on the same rows, by the metrics that the gates need.
        latency: How long one row takes.
        signature_problems: What a client of production could not do with staging, a sentence for each.
    """

    comparison: Comparison
    latency: Latencies
    signature_problems: Sequence[str]


@dataclass(frozen=True)
class Ruling:
    """Whether staging passes one gate.

    Attributes:
        rule: The name of the gate's rule.
        passed: Whether it does.
        value: The number that was judged; None where there is none.
        threshold: What it was held against; None where there is nothing.
        text: One sentence that says both.
    """

    rule: str
    passed: bool
    value: float | None
    threshold: float | None
    text: str

    def __post_init__(self) -> None:
        # A gate of one's own may compute with numpy, whose numbers are not those of JSON.
        object.__setattr__(self, "passed", bool(self.passed))
        for name in ("value", "threshold"):
            number = getattr(self, name)
            if number is None:
                continue
            if not math.isfinite(number):
                raise ValueError(
                    f"The {name} of the rule {self.rule} is {number}; it must be finite, or None."
                )
            object.__setattr__(self, name, float(number))


class Gate(ABC):
    """One thing that staging must prove.

    A gate of one's own is a frozen dataclass:

        @dataclass(frozen=True)
        class EnoughRows(Gate):
            '''The comparison rests on enough rows.'''

            least: int
            rule: str = "enough_rows"

            def judge(self, findings: Findings) -> Ruling:
                rows = findings.comparison.rows
                text = f"{rows:,} rows were compared, and {self.least:,} are needed."
                return Ruling(self.rule, rows >= self.least, rows, self.least, text)

    Attributes:
        rule: Its name in rulings, and that of the asset check that shows them: letters, digits and
            underscores. A policy has each once.
    """

    rule: str

    @property
    def description(self) -> str:
        """One sentence on what is asked for; the first line of the class's docstring unless overridden."""
        return (inspect.getdoc(type(self)) or self.rule).splitlines()[0]

    @abstractmethod
    def evaluate(self, findings: Findings) -> Ruling:
        """Hold staging against the gate.

        Raises:
            ComparisonError: The comparison lacks a metric.
        """

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """List the metrics that models must be compared by."""
        return ()

    def require_fits(self, kind: PredictionKind) -> None:
        """Refuse a kind of prediction for which the gate has no meaning.

        Raises:
            ValueError: The error names gate and field.
        """
        try:
            self.metrics(kind)
        except ComparisonError as error:
            raise ValueError(f"The gate {type(self).__name__} ({self.rule}): {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """Return class and fields as values of JSON, which are sealed with the evidence."""
        if not is_dataclass(self):
            raise ValueError(f"The gate {type(self).__name__} must be a frozen dataclass.")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"gate": type(self).__name__, "rule": self.rule} | {
            name: value.as_dict() if isinstance(value, Metric) else value for name, value in values.items()
        }


def require_number(gate: Gate, field: str, *, lowest: float = -math.inf, highest: float = math.inf) -> None:
    """Refuse a field that is not a finite number within bounds.

    Raises:
        ValueError: The error names gate and field.
    """
    value, named = getattr(gate, field), f"{field} of the gate {type(gate).__name__}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{named} is {value!r}; it must be a number.")
    if not math.isfinite(value) or not lowest <= value <= highest:
        limits = f"between {lowest:g} and {highest:g}"
        if highest == math.inf:
            limits = "a finite number" if lowest == -math.inf else f"finite, and {lowest:g} or more"
        raise ValueError(f"{named} is {value}; it must be {limits}.")
