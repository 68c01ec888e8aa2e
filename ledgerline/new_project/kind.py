"""Declares the kinds of prediction that a new project can have."""

from enum import StrEnum


class Kind(StrEnum):
    """A kind of prediction, by the name that `ledgerline new --kind` takes."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    QUANTILES = "quantiles"

    @property
    def outcome(self) -> str:
        """Column of the example rows that is predicted."""
        return {Kind.BINARY: "sold_out", Kind.MULTICLASS: "demand_level"}.get(self, "demand")

    @property
    def question(self) -> str:
        """Question that the model of the example rows answers."""
        return {
            Kind.BINARY: "how likely is it that a shop sells out",
            Kind.MULTICLASS: "will demand in a shop be low, normal or high",
            Kind.REGRESSION: "how much will a shop sell",
            Kind.QUANTILES: "how much will a shop sell at least, probably and at most",
        }[self]

    @property
    def fact(self) -> str:
        """Outcome of an example row, in words."""
        return {Kind.BINARY: "whether the shop sold out", Kind.MULTICLASS: "how high demand was"}.get(
            self, "how much was asked for"
        )

    @property
    def is_classified(self) -> bool:
        """True for classifiers, which predict probabilities."""
        return self in (Kind.BINARY, Kind.MULTICLASS)
