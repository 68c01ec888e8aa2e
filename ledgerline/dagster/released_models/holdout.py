"""Rows that are kept for evaluation where rows have no partitions: a share, chosen by a stable hash."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# A hash has 64 bits.
_ALL = 2**64


@dataclass(frozen=True)
class Holdout:
    """A share of the rows, the same ones whenever it is asked for, however many others come.

    Attributes:
        share: How many rows are kept for evaluation, between 0 and 1.
        by: Columns that name what belongs together, such as a customer: all its rows are on one side.
        salt: Another one chooses other rows.
    """

    share: float
    by: Sequence[str]
    salt: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; it must lie between 0 and 1, for instance 0.2.")
        if isinstance(self.by, str) or not self.by:
            raise ValueError(f"by is {self.by!r}; give a list of at least one column.")

    def is_held_out(self, rows: "pd.DataFrame") -> "pd.Series":
        """Return for each row whether it is kept for evaluation."""
        import pandas as pd

        # Hash texts, so that 1 and 1.0 read from different files are one value.
        texts = rows[list(self.by)].astype("string").fillna("").agg("\x1f".join, axis=1) + self.salt
        hashes = pd.util.hash_pandas_object(texts.astype(object), index=False)
        return pd.Series(hashes.to_numpy() < self.share * _ALL, index=rows.index)

    def as_text(self) -> str:
        """Return what a version records of it."""
        return json.dumps({"share": self.share, "by": list(self.by), "salt": self.salt}, sort_keys=True)
