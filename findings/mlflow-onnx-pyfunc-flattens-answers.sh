#!/usr/bin/env bash
# MLflow's pyfunc of an ONNX model flattens what it answers about a DataFrame: 4 rows of 3 values become 12 rows of one.
#
# mlflow-skinny 3.17.2, onnx 1.23.2, onnxruntime 1.32.0; Python 3.11.
# Expected: an answer has a row for each row of the inputs, as the model's signature says and as the same model answers
# about an array; or an error, since a column of a DataFrame cannot hold a matrix.
# Seen: mlflow/onnx/__init__.py, `_OnnxModelWrapper.predict` makes every output a column by `reshape(-1)`. A model with
# one output of shape (rows, k), such as the probabilities of a network or several quantiles, answers rows * k rows
# without a warning: predictions that are assigned to rows by position are then wrong.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  mlflow-skinny==3.17.2 onnx==1.23.2 onnxruntime==1.32.0 pandas==2.3.3

cat >"$folder/ask.py" <<'PYTHON'
import sys

import mlflow.onnx
import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from onnx import TensorProto, helper, numpy_helper

rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 1.0, 1.0, 1.0]}, dtype="float32")
weights = np.array([[1, 2, 3], [0, 0, 0]], dtype="float32")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["rows", "weights"], ["quantiles"])],
    "quantiles",
    [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 2])],
    [helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [None, 3])],
    [numpy_helper.from_array(weights, "weights")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
signature = ModelSignature(
    Schema([ColSpec("float", "a"), ColSpec("float", "b")]), Schema([TensorSpec(np.dtype("float32"), (-1, 3))])
)
mlflow.onnx.save_model(model, sys.argv[1], signature=signature, pip_requirements=["onnx"])
served = mlflow.pyfunc.load_model(sys.argv[1])
about_a_frame = served.predict(rows)
about_an_array = mlflow.onnx._OnnxModelWrapper(f"{sys.argv[1]}/model.onnx").predict(rows.to_numpy())
print("signature of the answer:", signature.outputs)
print("about an array of 4 rows:", about_an_array["quantiles"].shape)
print("about a frame of 4 rows: ", about_a_frame.shape, about_a_frame["quantiles"].tolist())
sys.exit(0 if about_a_frame.shape == (12, 1) else 1)
PYTHON

if "$folder/venv/bin/python" -W ignore "$folder/ask.py" "$folder/model"; then
  echo "As described: the answer about the frame has a row for each value."
else
  echo "Changed: the answer about the frame has a row for each row."
  exit 1
fi
