"""Stores ONNX models, which ONNX Runtime runs on the CPU."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.mlflow_store.stored_model import (
    PREDICT,
    PROBABILITIES,
    Flavour,
    ModelRefusedError,
    Needs,
    Saved,
    StoredModel,
    doubles,
    file_in,
    library,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

REQUIREMENTS = ("numpy", "pandas", "onnx", "onnxruntime")

MAX_BYTES = 2**31 - 1  # maximum bytes of a message of Protocol Buffers

# NumPy's type for each type name of ONNX Runtime.
TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class Onnx(Flavour):
    """Flavour of graphs with one matrix as input, or with one column for each input.

    `predict` returns the first output of a graph. `predict_proba` returns the last one, because converters
    put the probabilities after the labels.
    """

    name = "onnx"
    takes = "ONNX models"
    extra = "onnx"

    def owns(self, model: Any) -> bool:
        """Return whether a model is an ONNX graph."""
        onnx = sys.modules.get("onnx")
        return onnx is not None and isinstance(model, onnx.ModelProto)

    def stored(self, model: Any, method: str, categories: Sequence[str]) -> StoredModel:
        """Return a model that predicts with the graph in memory, before it is written."""
        if model.ByteSize() > MAX_BYTES:
            raise ModelRefusedError(
                f"The ONNX model is larger than {MAX_BYTES} bytes, the limit for one file.",
                "Log a smaller model, for instance a quantised one.",
            )
        return self._running(model, model.SerializeToString(), method)

    def model_type(self, model: Any, method: str) -> str | None:
        """Return the kind by the method, and by whether the first of several outputs is a label."""
        return "classifier" if method == PROBABILITIES or len(model.graph.output) > 1 else "regressor"

    def needs(self, model: Any) -> Needs:
        """Return what loading the graph needs: ONNX Runtime, and the libraries that MLflow uses."""
        return Needs(REQUIREMENTS)

    def write(self, stored: StoredModel, folder: Path, saved: Saved) -> None:
        """Write the graph with its weights in the same file."""
        from mlflow import onnx

        onnx.save_model(stored.model, str(folder), save_as_external_data=False, **saved.options)
        saved.add(self.name, folder, stored.method)

    def read(self, folder: Path, config: Mapping[str, Any], method: str) -> StoredModel:
        """Load the graph. Providers and options in its description are ignored."""
        return self._running(None, str(file_in(folder, config, "data")), method)

    def _running(self, model: Any, source: str | bytes, method: str) -> StoredModel:
        runtime = library(self, "onnxruntime")
        options = runtime.SessionOptions()
        # Threads that spin while they wait would take CPU time from other requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # The errors of ONNX Runtime have no common class.
            raise ModelRefusedError(
                f"ONNX Runtime cannot load the model: {error}",
                "Convert it for the operators and the opset of the installed ONNX Runtime.",
            ) from error
        answer = _answer(session, _output(session, method))
        return StoredModel(self.name, session if model is None else model, method, doubles(answer))


def _output(session: Any, method: str) -> str:
    outputs = session.get_outputs()
    if method == PREDICT:
        return outputs[0].name
    last = outputs[-1]
    # An output with one number per row is a label or a value.
    if method != PROBABILITIES or (last.type in TYPES and len(last.shape) < 2):
        raise ModelRefusedError(
            f"The ONNX model has no {method}: its outputs are "
            f"{', '.join(f'{each.name}, a {each.type} {each.shape}' for each in outputs)}.",
            f'Log it with method="{PREDICT}", or convert it with the probabilities as last output.',
        )
    return last.name


def _answer(session: Any, output: str) -> Callable[[Any], Any]:
    inputs = session.get_inputs()
    unknown = [f"{each.name}, a {each.type}" for each in inputs if each.type not in TYPES]
    if unknown:
        raise ModelRefusedError(
            f"The ONNX model has the inputs {', '.join(unknown)}.",
            f"Convert it with inputs of these types: {', '.join(TYPES)}.",
        )

    def answer(rows: Any) -> Any:
        if len(inputs) == 1:
            feeds = {inputs[0].name: _matrix(rows, inputs[0])}
        else:
            feeds = {each.name: _matrix(rows[[each.name]], each) for each in inputs}
        return _array(session.run([output], feeds)[0])

    return answer


def _matrix(rows: Any, taken: Any) -> "NDArray[Any]":
    """Return rows converted to the type of an input. Missing texts become empty texts."""
    import numpy as np
    import pandas as pd

    values = rows.to_numpy() if isinstance(rows, pd.DataFrame) else np.asarray(rows)
    dtype = TYPES[taken.type]
    if dtype == "object":
        return np.where(pd.isna(values), "", values)
    return values.astype(dtype)


def _array(answered: Any) -> "NDArray[Any]":
    """Return predictions by row: a column becomes an array of values, and maps by class become a matrix."""
    import numpy as np

    if isinstance(answered, list):
        classes = list(answered[0])
        return np.array([[row[each] for each in classes] for row in answered])
    return answered[:, 0] if answered.ndim == 2 and answered.shape[1] == 1 else answered
