"""The two loaded versions of a comparison, with their predictions and latencies."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.evaluation.rulings import Latencies
from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.registry import Model
from ledgerline.registry.versions import Version

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Number of single rows that both versions predict.
TIMED_ROWS = 60


@dataclass(frozen=True)
class Contender:
    """A loaded version.

    Attributes:
        signature: MLflow ModelSignature of the model; None if it has none.
        bytes: Size of its files, in bytes.
    """

    declared: ReleasedModel
    version: Version
    stored: StoredModel
    signature: Any
    bytes: int

    def answers(self, rows: "pd.DataFrame") -> Any:
        """Return the predictions of the version for rows.

        Raises:
            PermanentFailure: The model cannot predict these rows.
        """
        try:
            return self.stored.answer(self.declared.inputs(rows))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise PermanentFailure(
                f"Version {self.version.number} of {self.version.name} cannot predict: {error}.",
                f"The model must accept what `inputs` returns for {self.declared.rows_key.to_user_string()}.",
            ) from error

    def answer(self, inputs: "pd.DataFrame") -> "Mapping[str, NDArray[Any]]":
        """Return the response of a service with this version: an array without a name."""
        return {"": self.stored.answer(self.declared.inputs(inputs))}


def contender(registered: Model, model: ReleasedModel, version: Version) -> Contender:
    """Load a version.

    Raises:
        PermanentFailure: The files are not those that were registered, or are not trusted.
    """
    signature, size = registered.signature_and_size(version)
    return Contender(model, version, registered.load(version), signature, size)


def row_latencies(staging: Contender, production: Contender | None, rows: "pd.DataFrame") -> Latencies:
    """Measure the latency of one row, in turns; the minimum of many is least affected by other load."""
    inputs = staging.declared.inputs(rows.head(TIMED_ROWS))
    contenders = [staging, *([production] if production else [])]
    taken: list[list[float]] = [[] for _ in contenders]
    for number in range(len(inputs)):
        row = inputs.iloc[[number]]
        for one, times in zip(contenders, taken, strict=True):
            started = time.perf_counter()
            one.stored.answer(row)
            times.append((time.perf_counter() - started) * 1000)
    return Latencies(min(taken[0]), min(taken[1]) if production else None)
