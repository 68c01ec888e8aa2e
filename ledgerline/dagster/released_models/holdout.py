"""The share of rows without partitions that is kept for evaluation, chosen by a stable hash."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    import pandas as pd

_HASHES = 2**64  # a hash has 64 bits


class HoldoutError(LedgerlineError):
    """A holdout contains no rows or all rows, or does not name its columns."""


@dataclass(frozen=True)
class Holdout:
    """A share of the rows; the same rows are held out each time, even after others were added.

    Attributes:
        share: Share of the rows that is kept for evaluation, between 0 and 1.
        by: Columns that identify a group, such as a customer; all rows of a group are on one side.
        salt: Text that changes which rows are held out.
    """

    share: float
    by: Sequence[str]
    salt: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise HoldoutError(
                f"The share of a holdout is {self.share}.", "It must lie between 0 and 1, as 0.2."
            )
        if isinstance(self.by, str) or not self.by:
            raise HoldoutError(f"`by` of a holdout is {self.by!r}.", "Name a list of at least one column.")

    def is_held_out(self, rows: "pd.DataFrame") -> "pd.Series":
        """Return, for each row, whether it is kept for evaluation."""
        import pandas as pd

        # Texts are hashed, so that 1 and 1.0 from different files are the same value.
        texts = rows[list(self.by)].astype("string").fillna("").agg("\x1f".join, axis=1) + self.salt
        hashes = pd.util.hash_pandas_object(texts.astype(object), index=False)
        return pd.Series(hashes.to_numpy() < self.share * _HASHES, index=rows.index)

    def as_text(self) -> str:
        """Return the text with which a version records the holdout."""
        return json.dumps({"share": self.share, "by": list(self.by), "salt": self.salt}, sort_keys=True)
