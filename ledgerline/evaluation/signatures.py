"""Compares MLflow signatures: whether a client of one model can use another without a change."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

# MLflow converts inputs of the first type to the second without a loss (_enforce_mlflow_datatype in
# mlflow.models.utils). Outputs are not converted, so no change of their type is safe.
WIDENED = frozenset({("integer", "long"), ("integer", "double"), ("float", "double")})


def problems(staging: "ModelSignature | None", production: "ModelSignature | None") -> list[str]:
    """Return the changes that would break clients of production if staging were active, one sentence each.

    A column that staging no longer has is a problem, too: MLflow accepts and ignores it, so the prediction
    would silently disregard it. Without a version in production, its signature is None.
    """
    if staging is None or staging.inputs is None or staging.outputs is None:
        return ["Staging has no signature of inputs and outputs; log the model with one."]
    if production is None:
        return []
    messages = []
    if production.inputs is not None:
        messages += _input_problems(staging.inputs, production.inputs)
    if production.outputs is not None:
        messages += _output_problems(staging.outputs, production.outputs)
    return messages + _parameter_problems(_parameters(staging), _parameters(production))


def _input_problems(staging: "Schema", production: "Schema") -> list[str]:
    if staging.has_input_names() != production.has_input_names():
        names = "needs named columns" if staging.has_input_names() else "takes columns by position"
        other = "by position" if staging.has_input_names() else "by name"
        return [f"Staging {names}, and clients send them {other}."]
    ours, theirs = _columns(staging), _columns(production)
    messages = []
    for name, sent in theirs.items():
        wanted = ours.get(name)
        if wanted is None:
            messages.append(f"Staging does not accept {name}, which clients send.")
            continue
        if not _is_accepted(sent, wanted):
            messages.append(f"Staging takes {name} as {_type(wanted)}, and clients send {_type(sent)}.")
        if wanted.required and not sent.required:
            messages.append(f"Staging requires {name}, which clients may omit.")
    messages += [
        f"Staging requires {name}, which clients do not send."
        for name, wanted in ours.items()
        if name not in theirs and wanted.required
    ]
    return messages


def _output_problems(staging: "Schema", production: "Schema") -> list[str]:
    ours, theirs = _columns(staging), _columns(production)
    messages = []
    for name, expected in theirs.items():
        answered = ours.get(name)
        if answered is None:
            messages.append(f"Staging does not return {name}, which clients expect.")
        elif _type(answered) != _type(expected):
            messages.append(
                f"Staging returns {name} as {_type(answered)}, and clients expect {_type(expected)}."
            )
        elif expected.required and not answered.required:
            messages.append(f"Staging may omit {name}, which clients expect in every response.")
    messages += [
        f"Staging returns {name}, which clients do not expect." for name in ours if name not in theirs
    ]
    shared = [name for name in theirs if name in ours]
    if not messages and shared != list(ours):
        messages.append(f"Staging returns its outputs in another order: {', '.join(ours)}.")
    return messages


def _parameter_problems(staging: Mapping[str, Any], production: Mapping[str, Any]) -> list[str]:
    """Compare the parameters; a new one is safe, because parameters always have a default."""
    messages = []
    for name, sent in production.items():
        known = staging.get(name)
        if known is None:
            messages.append(f"Staging does not accept the parameter {name}, which clients may send.")
        elif (known.dtype, known.shape) != (sent.dtype, sent.shape):
            messages.append(f"Staging accepts the parameter {name} as another type than clients send.")
        elif known.default != sent.default:
            messages.append(
                f"The default of the parameter {name} is {known.default!r} in staging and {sent.default!r} "
                "in production."
            )
    return messages


def _columns(schema: "Schema") -> dict[str, Any]:
    """Return columns or tensors by name, or by position if they have no name."""
    if schema.has_input_names():
        return {str(column.name): column for column in schema.inputs}
    if schema.is_tensor_spec():
        return {"the tensor": schema.inputs[0]}
    return {f"column {number}": column for number, column in enumerate(schema.inputs)}


def _parameters(signature: "ModelSignature") -> dict[str, Any]:
    params = signature.params
    return {parameter.name: parameter for parameter in params.params} if params is not None else {}


def _is_accepted(sent: Any, wanted: Any) -> bool:
    return _type(sent) == _type(wanted) or (_type(sent), _type(wanted)) in WIDENED


def _type(column: Any) -> str:
    """Return MLflow's name of the type; for a tensor, type and shape."""
    shape = getattr(column, "shape", None)
    if shape is not None:
        return f"a tensor of {column.type} with shape {tuple(shape)}"
    return str(getattr(column.type, "name", column.type))
