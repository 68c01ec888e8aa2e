"""Loss functions: the error of each row. Their means over rows are metrics (kinds.py)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Outcome = NDArray[Any]
    Prediction = NDArray[np.float64]


def brier(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return the squared difference of probability and outcome."""
    return (prediction - outcome) ** 2


def log_loss(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return minus the logarithm of the probability of the actual outcome, in nats."""
    import numpy as np

    return _surprise(np.where(outcome, prediction, 1 - prediction))


def class_brier(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return the sum, over classes, of the squared differences of probability and outcome."""
    import numpy as np

    happened = outcome[:, None] == np.arange(prediction.shape[1])
    return ((prediction - happened) ** 2).sum(axis=1)


def class_log_loss(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return minus the logarithm of the probability of the actual class, in nats."""
    import numpy as np

    return _surprise(np.take_along_axis(prediction, outcome[:, None], axis=1)[:, 0])


def right(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return 1 where the most probable class (the first of equal ones) is right, and 0 elsewhere."""
    return (prediction.argmax(axis=1) == outcome).astype(float)


def absolute_error(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return the absolute difference of prediction and outcome."""
    return abs(prediction - outcome)


@dataclass(frozen=True)
class Pinball:
    """The pinball loss, averaged over levels.

    The loss is level times x if the outcome exceeds the quantile by x, and (1 - level) times x if the
    quantile exceeds the outcome by x.
    """

    levels: tuple[float, ...]

    def __call__(self, outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
        """Return the loss of each row."""
        import numpy as np

        levels, excess = np.array(self.levels), outcome[:, None] - prediction
        return np.maximum(levels * excess, (levels - 1) * excess).mean(axis=1)


def inside(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return 1 where the outcome lies from the lowest to the highest quantile, and 0 elsewhere."""
    return ((prediction[:, 0] <= outcome) & (outcome <= prediction[:, -1])).astype(float)


def width(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return the distance of the lowest and the highest quantile."""
    return abs(prediction[:, -1] - prediction[:, 0])


def crossing(outcome: "Outcome", prediction: "Prediction") -> "NDArray[np.float64]":
    """Return 1 where a quantile is below that of a lower level, and 0 elsewhere."""
    return (prediction[:, 1:] < prediction[:, :-1]).any(axis=1).astype(float)


def _surprise(probability: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return minus the logarithm; probabilities of 0 and 1 are moved by the machine precision first."""
    import numpy as np

    precision = np.finfo(np.float64).eps
    return -np.log(np.clip(probability, precision, 1 - precision))
