"""The kinds of prediction that a new project can be of."""

from enum import StrEnum


class Kind(StrEnum):
    """A kind of prediction, by the name that `ledgerline new --kind` takes."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    QUANTILES = "quantiles"

    @property
    def outcome(self) -> str:
        """The column of the made rows that is predicted."""
        return {Kind.BINARY: "sold_out", Kind.MULTICLASS: "demand_level"}.get(self, "demand")

    @property
    def question(self) -> str:
        """The question that a model of the made rows answers."""
        return {
            Kind.BINARY: "how likely is it that a shop sells out",
            Kind.MULTICLASS: "will demand in a shop be low, normal or high",
            Kind.REGRESSION: "how much will a shop sell",
            Kind.QUANTILES: "how much will a shop sell at least, probably and at most",
        }[self]

    @property
    def fact(self) -> str:
        """The outcome of a made row, in words."""
        return {Kind.BINARY: "whether the shop sold out", Kind.MULTICLASS: "how high demand was"}.get(
            self, "how much was asked for"
        )

    @property
    def is_classified(self) -> bool:
        """Whether its model is a classifier, which predicts probabilities."""
        return self in (Kind.BINARY, Kind.MULTICLASS)
