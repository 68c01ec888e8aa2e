"""The JSON bodies of both protocols, declared once; open_inference.py and scoring.py convert them.

Pydantic checks requests by these types, and FastAPI describes all bodies by them in the OpenAPI document.
Responses are typed dictionaries, which orjson writes without a copy.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, InstanceOf, WithJsonSchema

# Pydantic needs this one before Python 3.12.
from typing_extensions import TypedDict

from ledgerline.serving.request_errors import Problem

# The parameter of a tensor whose data follow the JSON as bytes.
BINARY_PARAMETER = "binary_data_size"
NO_BINARY = "binary tensors are not supported; send their data as JSON (in most clients: binary_data=False)"

IntegerName = Literal["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
FloatName = Literal["FP16", "FP32", "FP64"]
DatatypeName = Literal["BOOL", IntegerName, FloatName, "BYTES"]


def _require_no_binary(parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    if parameters is not None and BINARY_PARAMETER in parameters:
        raise ValueError(NO_BINARY)
    return parameters


Parameters = Annotated[dict[str, Any] | None, AfterValidator(_require_no_binary)]
# Only the type of the list is checked here: schema.py checks the values, a column at a time.
Data = InstanceOf[list[Any]]
# An array, which orjson writes as a list.
ArrayOrList = Annotated[Any, WithJsonSchema({"type": "array", "items": {}})]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True)


class RequestTensor(_Request):
    """A column of the rows, or the whole array of a model that takes one."""

    name: str
    parameters: Parameters = None
    shape: Annotated[list[Annotated[int, Field(ge=0)]], FailFast()]
    datatype: DatatypeName
    data: Annotated[Data, Field(description="Values by row, flat or nested; null is a missing value.")]

    @property
    def rows(self) -> int:
        """The number of rows, by the shape."""
        return self.shape[0] if self.shape else 0


class RequestedOutput(_Request):
    """An output that the response should have."""

    name: str
    parameters: Parameters = None


class InferenceRequest(_Request):
    """Rows for a model, as tensors."""

    id: str | None = None
    parameters: Parameters = None
    inputs: Annotated[list[RequestTensor], FailFast(), Field(min_length=1)]
    outputs: Annotated[list[RequestedOutput] | None, FailFast()] = None


class Split(_Request):
    """Rows as lists, with the names of their columns."""

    columns: Annotated[list[str], FailFast()] = []
    data: Data


class Tensor(TypedDict):
    """A tensor of a response; its data are flat."""

    name: str
    shape: list[int]
    datatype: DatatypeName
    data: ArrayOrList


class InferenceResponse(TypedDict):
    """The prediction for an inference request."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[Tensor]


class TensorMetadata(TypedDict):
    """A tensor that a model takes or returns; -1 is an axis of any length."""

    name: str
    datatype: DatatypeName
    shape: list[int]
    parameters: NotRequired[dict[str, Any]]


class ModelMetadata(TypedDict):
    """The inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(TypedDict):
    """The name and version of this server."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(TypedDict):
    """The readiness of a model: true if it has an active version."""

    name: str
    ready: bool


class Ready(TypedDict):
    """The readiness of the service, and the state of each model for clients with a token."""

    ready: bool
    models: NotRequired[dict[str, Any]]


class InferenceError(TypedDict):
    """The reason of a refusal, as the Open Inference Protocol has it."""

    error: str


class Predictions(TypedDict):
    """The prediction of a model, by row."""

    predictions: ArrayOrList


class Error(TypedDict):
    """The reason of a refusal, as MLflow has it; `problems` are those of rows and columns."""

    error_code: str
    message: str
    problems: NotRequired[list[Problem]]
