"""Declares the kinds of prediction that a new project can have."""

from enum import StrEnum


class Kind(StrEnum):
    """A kind of prediction. Its value is the argument of `ledgerline new --kind`."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    QUANTILES = "quantiles"

    @property
    def outcome(self) -> str:
        """The column of the example rows that is predicted."""
        return {Kind.BINARY: "sold_out", Kind.MULTICLASS: "demand_level"}.get(self, "demand")

    @property
    def question(self) -> str:
        """The question that predictions for the example rows answer."""
        return {
            Kind.BINARY: "how likely is it that a shop sells out",
            Kind.MULTICLASS: "will demand in a shop be low, normal or high",
            Kind.REGRESSION: "how much will a shop sell",
            Kind.QUANTILES: "how much will a shop sell at least, probably and at most",
        }[self]

    @property
    def fact(self) -> str:
        """A description of the outcome of an example row."""
        return {Kind.BINARY: "whether the shop sold out", Kind.MULTICLASS: "how high demand was"}.get(
            self, "how much was asked for"
        )

    @property
    def is_classified(self) -> bool:
        """True for classifiers, which predict probabilities."""
        return self in (Kind.BINARY, Kind.MULTICLASS)
