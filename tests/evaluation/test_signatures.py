"""Tests of the comparison of signatures: the changes that break a client of production."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from ledgerline.evaluation.signatures import WIDENED, problems

ANSWER = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
CARRIER = ColSpec("string", "carrier")
WIND = ColSpec("double", "wind_gust", required=False)
HOUR = ColSpec("integer", "hour")


def taking(*columns: ColSpec) -> ModelSignature:
    return ModelSignature(Schema(list(columns)), ANSWER)


def answering(*columns: ColSpec | TensorSpec) -> ModelSignature:
    return ModelSignature(Schema([CARRIER]), Schema(list(columns)))


def with_parameters(*parameters: ParamSpec) -> ModelSignature:
    return ModelSignature(Schema([CARRIER]), ANSWER, ParamSchema(list(parameters)))


@pytest.mark.parametrize(
    ("staging", "production"),
    [
        (taking(CARRIER, WIND), taking(CARRIER, WIND)),
        (taking(WIND, CARRIER), taking(CARRIER, WIND)),
        (taking(CARRIER, WIND), taking(CARRIER)),
        (taking(ColSpec("string", "carrier", required=False)), taking(CARRIER)),
        (taking(ColSpec("long", "hour")), taking(HOUR)),
        (taking(ColSpec("double", "hour")), taking(HOUR)),
        (taking(ColSpec("string"), ColSpec("long")), taking(ColSpec("string"), ColSpec("integer"))),
        (with_parameters(ParamSpec("threshold", "double", 0.5)), taking(CARRIER)),
        (taking(CARRIER), None),
        (taking(CARRIER), ModelSignature(Schema([CARRIER]))),
        (taking(CARRIER), ModelSignature(outputs=ANSWER)),
    ],
    ids=[
        "the same",
        "another order of named columns",
        "a new optional column",
        "optional that was required",
        "a wider whole number",
        "a number that holds all whole ones",
        "a wider column without a name",
        "a new parameter",
        "no production version",
        "production does not say what it answers",
        "production does not say what it takes",
    ],
)
def test_compatible_changes_do_not_affect_clients(
    staging: ModelSignature, production: ModelSignature | None
) -> None:
    assert problems(staging, production) == []


@pytest.mark.parametrize(
    ("staging", "production", "problem"),
    [
        (taking(CARRIER), taking(CARRIER, WIND), "Staging does not accept wind_gust, which clients send."),
        (taking(CARRIER, HOUR), taking(CARRIER), "Staging requires hour, which clients do not send."),
        (
            taking(ColSpec("double", "wind_gust")),
            taking(WIND),
            "Staging requires wind_gust, which clients may omit.",
        ),
        (
            taking(ColSpec("string", "hour")),
            taking(HOUR),
            "Staging takes hour as string, and clients send integer.",
        ),
        (
            taking(HOUR),
            taking(ColSpec("double", "hour")),
            "Staging takes hour as integer, and clients send double.",
        ),
        (
            taking(ColSpec("string")),
            taking(ColSpec("string"), ColSpec("long")),
            "Staging does not accept column 1, which clients send.",
        ),
        (
            taking(ColSpec("string")),
            taking(CARRIER),
            "Staging takes columns by position, and clients send them by name.",
        ),
        (
            taking(CARRIER),
            taking(ColSpec("string")),
            "Staging needs named columns, and clients send them by position.",
        ),
        (
            ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 3))]), ANSWER),
            ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 4))]), ANSWER),
            (
                "Staging takes the tensor as a tensor of float32 with shape (-1, 3), and clients send "
                "a tensor of float32 with shape (-1, 4)."
            ),
        ),
        (
            answering(TensorSpec(np.dtype("float64"), (-1, 3))),
            answering(TensorSpec(np.dtype("float64"), (-1, 2))),
            (
                "Staging returns the tensor as a tensor of float64 with shape (-1, 3), and clients expect "
                "a tensor of float64 with shape (-1, 2)."
            ),
        ),
        (
            answering(ColSpec("long", "late")),
            answering(ColSpec("integer", "late")),
            "Staging returns late as long, and clients expect integer.",
        ),
        (
            answering(ColSpec("double", "late")),
            answering(ColSpec("double", "late"), ColSpec("double", "cancelled")),
            "Staging does not return cancelled, which clients expect.",
        ),
        (
            answering(ColSpec("double", "late"), ColSpec("double", "cancelled")),
            answering(ColSpec("double", "late")),
            "Staging returns cancelled, which clients do not expect.",
        ),
        (
            answering(ColSpec("double", "late", required=False)),
            answering(ColSpec("double", "late")),
            "Staging may omit late, which clients expect in every response.",
        ),
        (
            answering(ColSpec("double", "cancelled"), ColSpec("double", "late")),
            answering(ColSpec("double", "late"), ColSpec("double", "cancelled")),
            "Staging returns its outputs in another order: cancelled, late.",
        ),
        (
            taking(CARRIER),
            with_parameters(ParamSpec("threshold", "double", 0.5)),
            "Staging does not accept the parameter threshold, which clients may send.",
        ),
        (
            with_parameters(ParamSpec("threshold", "long", 1)),
            with_parameters(ParamSpec("threshold", "double", 0.5)),
            "Staging accepts the parameter threshold as another type than clients send.",
        ),
        (
            with_parameters(ParamSpec("threshold", "double", 0.4)),
            with_parameters(ParamSpec("threshold", "double", 0.5)),
            "The default of the parameter threshold is 0.4 in staging and 0.5 in production.",
        ),
    ],
)
def test_a_client_would_notice(staging: ModelSignature, production: ModelSignature, problem: str) -> None:
    assert problems(staging, production) == [problem]


@pytest.mark.parametrize("staging", [None, ModelSignature(Schema([CARRIER])), ModelSignature(outputs=ANSWER)])
@pytest.mark.parametrize("production", [None, taking(CARRIER)])
def test_a_model_without_a_signature_is_a_problem(
    staging: ModelSignature | None, production: ModelSignature | None
) -> None:
    (problem,) = problems(staging, production)
    assert "no signature" in problem


def test_each_problem_has_its_sentence() -> None:
    found = problems(
        ModelSignature(Schema([HOUR]), Schema([ColSpec("double", "late")])),
        ModelSignature(Schema([CARRIER, WIND]), ANSWER),
    )
    assert len(found) == 5
    assert all(sentence.startswith("Staging ") and sentence.endswith(".") for sentence in found)


def test_two_models_trained_on_the_same_columns_have_the_same_signature() -> None:
    rows = pd.DataFrame({"carrier": ["AA", None], "hour": [1.0, 2.0]})
    answers = np.array([[0.5, 0.5], [0.1, 0.9]])
    assert problems(infer_signature(rows, answers), infer_signature(rows[::-1], answers)) == []


VALUES: dict[str, Any] = {
    "boolean": True,
    "integer": np.int32(7),
    "long": np.int64(7),
    "float": np.float32(0.1),
    "double": 0.1,
    "string": "seven",
}


@pytest.mark.parametrize("wanted", VALUES)
@pytest.mark.parametrize("sent", VALUES)
def test_a_changed_type_is_accepted_exactly_where_mlflow_converts_it(sent: str, wanted: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.models.utils import _enforce_schema

    rows = pd.DataFrame({"column": [VALUES[sent]]})
    assert DataType[sent].to_pandas() == rows["column"].dtype
    try:
        enforced = _enforce_schema(rows, Schema([ColSpec(wanted, "column")]))
        converted = enforced["column"].dtype == DataType[wanted].to_pandas()  # else it is passed on as it is
    except MlflowException:
        converted = False
    found = problems(taking(ColSpec(wanted, "column")), taking(ColSpec(sent, "column")))
    assert (not found) == (converted or sent == wanted)
    assert ((sent, wanted) in WIDENED) == (converted and sent != wanted)
