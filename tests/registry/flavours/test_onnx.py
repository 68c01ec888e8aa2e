"""Tests ONNX graphs: stored with all of their numbers, loaded, and used to predict."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.mlflow_store.model_files import load
from ledgerline.mlflow_store.stored_model import ModelRefusedError
from tests.registry.flavours.estimators import ROWS, Save, onnx_graph, require_no_pickle


def test_an_onnx_classifier_predicts_labels_or_probabilities(
    save: Save, inputs: pd.DataFrame, label: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(inputs.to_numpy(), label)
    graph = onnx_graph(model, inputs, options={"zipmap": False})

    labels = load(save(graph, inputs)).answer(inputs)
    probabilities = load(save(graph, inputs, method="predict_proba")).answer(inputs)

    np.testing.assert_array_equal(labels, model.predict(inputs.to_numpy()))
    np.testing.assert_allclose(probabilities, model.predict_proba(inputs.to_numpy()), atol=1e-5)


def test_probabilities_that_are_a_map_by_class_become_a_matrix(
    save: Save, inputs: pd.DataFrame, label: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(inputs.to_numpy(), np.array(["low", "middle", "high"])[label])

    answer = load(save(onnx_graph(model, inputs), inputs, method="predict_proba")).answer(inputs)

    np.testing.assert_allclose(answer, model.predict_proba(inputs.to_numpy()), atol=1e-5)


def test_an_onnx_regressor_predicts_one_value_for_each_row(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import Ridge

    model = Ridge().fit(inputs.to_numpy(), value)

    stored = load(folder := save(onnx_graph(model, inputs), inputs))

    assert stored.flavour == "onnx"
    answer = stored.answer(inputs)
    assert answer.shape == (ROWS,)
    np.testing.assert_allclose(answer, model.predict(inputs.to_numpy()), rtol=1e-4)
    require_no_pickle(folder)


def test_an_onnx_model_of_several_outputs_by_row_predicts_a_matrix(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(inputs.to_numpy(), np.column_stack([value - 1, value, value + 1]))

    answer = load(save(onnx_graph(model, inputs), inputs)).answer(inputs)

    np.testing.assert_allclose(answer, model.predict(inputs.to_numpy()), rtol=1e-4)


def test_an_onnx_model_with_an_input_for_each_column_accepts_texts_and_numbers(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = inputs.assign(kind=pd.Series(np.array(["bread", "cake"])[np.arange(ROWS) % 2], dtype="object"))
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    model = make_pipeline(columns, Ridge()).fit(rows, value + 5 * (rows["kind"] == "cake"))
    taken: Any = [
        (name, StringTensorType([None, 1]) if name == "kind" else DoubleTensorType([None, 1]))
        for name in ("age", "kind", "amount")
    ]
    graph = to_onnx(model, initial_types=taken)

    answer = load(save(graph, rows)).answer(rows)

    np.testing.assert_allclose(answer, model.predict(rows), rtol=1e-4)


def test_an_onnx_regressor_has_no_probabilities(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    from sklearn.tree import DecisionTreeRegressor

    graph = onnx_graph(DecisionTreeRegressor(max_depth=2).fit(inputs.to_numpy(), value), inputs)

    with pytest.raises(ModelRefusedError, match=r"has no predict_log_proba: its outputs are variable"):
        save(graph, inputs, method="predict_log_proba")


def test_a_graph_that_onnx_runtime_cannot_execute_is_refused(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import Ridge

    graph = onnx_graph(Ridge().fit(inputs.to_numpy(), value), inputs)
    graph.opset_import[0].version = 99

    with pytest.raises(ModelRefusedError, match="ONNX Runtime cannot load the model"):
        save(graph, inputs)


@pytest.mark.parametrize("place", ["inside", "beside", "absolute"])
def test_the_numbers_of_a_graph_are_read_from_files_of_the_model_only(
    save: Save, inputs: pd.DataFrame, tmp_path: Path, place: str
) -> None:
    """MLflow itself writes them to a second file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((2, 400), "float32"), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["sums"])],
        "sums",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [None, 400])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = save(model, inputs)
    assert load(folder).answer(inputs).shape == (ROWS, 400)
    file = "weights.bin"
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location=file, size_threshold=0)
    if place == "inside":
        np.testing.assert_allclose(
            load(folder).answer(inputs)[:, 0], inputs.to_numpy().sum(axis=1), rtol=1e-5
        )
        return
    outside = Path(shutil.move(folder / file, tmp_path / file))
    changed = onnx.load(folder / "model.onnx", load_external_data=False)
    for entry in changed.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = f"../{file}" if place == "beside" else str(outside)
    (folder / "model.onnx").write_bytes(changed.SerializeToString())

    with pytest.raises(ModelRefusedError, match="External data path validation failed"):
        load(folder)
