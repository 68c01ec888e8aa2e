"""The versions of a comparison at work: what they answer, how long that takes, and the baseline."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets import metrics
from assets.delay_model import MODEL_NAME, model_input, read_days, with_outcome
from assets.features import LABEL
from assets.holdout import training_days_of
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.evaluation.policy import Latencies
from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.versions import Version

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Single flights, each scored by both.
TIMED_ROWS = 60


@dataclass(frozen=True)
class Contender:
    """A version, loaded.

    Attributes:
        version: The version.
        model: Its model.
        signature: What it takes and gives, as an MLflow ModelSignature; None: it does not say.
        bytes: The size of its files.
    """

    version: Version
    model: StoredModel
    signature: Any
    bytes: int

    def probability(self, rows: "pd.DataFrame") -> "pd.Series":
        """How likely each flight is to be late.

        Raises:
            PermanentFailure: The model cannot take these rows.
        """
        import pandas as pd

        try:
            probability = self.model.answer(model_input(rows))[:, 1]
        except (ValueError, KeyError, AttributeError) as error:
            raise PermanentFailure(
                f"Version {self.version.number} of {MODEL_NAME} cannot score flights: {error}.",
                "It must be a scikit-learn classifier that takes the columns of features.",
            ) from error
        return pd.Series(probability, index=rows.index)

    def answer(self, inputs: "pd.DataFrame") -> "Mapping[str, NDArray[Any]]":
        """What a service answers that serves it: an array without a name."""
        return {"": self.model.answer(model_input(inputs))}


def contender(registry: ModelRegistryResource, version: Version) -> Contender:
    """Load a version.

    Raises:
        PermanentFailure: Its files are not those that were registered, or are not trusted.
    """
    signature, size = registry.files_of(version)
    return Contender(version, registry.load(version), signature, size)


def training_rows(tables: Tables, version: Version) -> "pd.DataFrame":
    """The flights that a version was trained on.

    Raises:
        PermanentFailure: It does not say which, or they are not stored any more.
    """
    days = training_days_of(version)
    return with_outcome(read_days(tables, days, f"{MODEL_NAME} version {version.number} learned from"))


def baseline(trained_on: "pd.DataFrame", rows: "pd.DataFrame") -> "pd.Series":
    """What somebody says who knows how often a carrier was late in an hour of the training days."""
    late = trained_on[LABEL].astype(bool)
    rates = metrics.carrier_hour_rates(trained_on, late)
    return metrics.carrier_hour_baseline(rows, rates, float(late.mean()))


def row_latencies(staging: Contender, production: Contender | None, rows: "pd.DataFrame") -> Latencies:
    """How long one flight takes: the fastest of many, in turns, which a busy machine changes least."""
    inputs = model_input(rows.head(TIMED_ROWS))
    contenders = [staging, *([production] if production else [])]
    taken: list[list[float]] = [[] for _ in contenders]
    for number in range(len(inputs)):
        row = inputs.iloc[[number]]
        for one, times in zip(contenders, taken, strict=True):
            started = time.perf_counter()
            one.model.answer(row)
            times.append((time.perf_counter() - started) * 1000)
    return Latencies(min(taken[0]), min(taken[1]) if production else None)
