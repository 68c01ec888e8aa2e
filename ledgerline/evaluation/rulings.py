"""The interface of gates, their input (findings) and their result (rulings). The gates are in gates.py."""

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
    """The time that a prediction for one row takes.

    Attributes:
        staging_ms: Shortest duration of many predictions by staging, in milliseconds.
        production_ms: Shortest duration of many predictions by production, in milliseconds; None without a
            version in production.
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
    """The input of all gates.

    Attributes:
        comparison: Comparison of both models by the metrics that the gates need.
        latency: Time that a prediction for one row takes.
        signature_problems: Differences of the signatures that break a client, one sentence each.
    """

    comparison: Comparison
    latency: Latencies
    signature_problems: Sequence[str]


@dataclass(frozen=True)
class Ruling:
    """The result of one gate.

    Attributes:
        passed: True if staging passes the gate.
        value: Number that the gate evaluated; None if it has no number.
        threshold: Number that the value was compared with; None if there is no threshold.
        text: Sentence that states value and threshold.
    """

    rule: str
    passed: bool
    value: float | None
    threshold: float | None
    text: str

    def __post_init__(self) -> None:
        # A custom gate may compute with numpy, whose numbers are not JSON values.
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
    """A condition that staging must meet before it is promoted.

    A custom gate is a frozen dataclass.

    Attributes:
        rule: Name in rulings, and of the asset check: letters, digits and underscores. It is unique within a
            policy.

    Example:
        >>> @dataclass(frozen=True)
        ... class EnoughRows(Gate):
        ...     '''The comparison rests on enough rows.'''
        ...
        ...     minimum: int
        ...     rule: str = "enough_rows"
        ...
        ...     def evaluate(self, findings: Findings) -> Ruling:
        ...         rows = findings.comparison.rows
        ...         text = f"{rows:,} rows were compared, and {self.minimum:,} are needed."
        ...         return Ruling(self.rule, rows >= self.minimum, rows, self.minimum, text)
        >>> EnoughRows(minimum=1000).description
        'The comparison rests on enough rows.'
    """

    rule: str

    @property
    def description(self) -> str:
        """The condition in one sentence; by default the first line of the class's docstring."""
        return (inspect.getdoc(type(self)) or self.rule).splitlines()[0]

    @abstractmethod
    def evaluate(self, findings: Findings) -> Ruling:
        """Evaluate the gate.

        Raises:
            ComparisonError: The comparison lacks a metric.
        """

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """List the metrics that models must be compared by."""
        return ()

    def require_fits(self, kind: PredictionKind) -> None:
        """Refuse a kind of prediction for which the gate has no meaning.

        Raises:
            ValueError: The gate has no meaning for the kind; the error names the gate and its field.
        """
        try:
            self.metrics(kind)
        except ComparisonError as error:
            raise ValueError(f"The gate {type(self).__name__} ({self.rule}): {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """Return class and fields as JSON values, which are sealed with the evidence."""
        if not is_dataclass(self):
            raise ValueError(f"The gate {type(self).__name__} must be a frozen dataclass.")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"gate": type(self).__name__, "rule": self.rule} | {
            name: value.as_dict() if isinstance(value, Metric) else value for name, value in values.items()
        }


def require_number(gate: Gate, field: str, *, lowest: float = -math.inf, highest: float = math.inf) -> None:
    """Refuse a field that is not a finite number within bounds.

    Raises:
        ValueError: The field is not such a number; the error names the gate and the field.
    """
    require_between(f"{field} of the gate {type(gate).__name__}", getattr(gate, field), lowest, highest)


def require_between(named: str, value: Any, lowest: float, highest: float) -> None:
    """Refuse a value that is not a finite number within bounds.

    Raises:
        ValueError: The value is not such a number; the error has the name of the value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{named} is {value!r}; it must be a number.")
    if not lowest <= value <= highest or not math.isfinite(value):
        limits = f"between {lowest:g} and {highest:g}"
        if highest == math.inf:
            limits = "a finite number" if lowest == -math.inf else f"finite, and {lowest:g} or more"
        raise ValueError(f"{named} is {value}; it must be {limits}.")
