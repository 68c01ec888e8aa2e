"""Loads versions into memory, verified and tested. follower.py decides which one is active."""

import copy
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from threadpoolctl import ThreadpoolController

from ledgerline.evaluation import signatures
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.mlflow_store import model_files
from ledgerline.mlflow_store.stored_model import PREDICT, PYFUNC, ModelRefusedError, StoredModel
from ledgerline.registry.versions import Version, verified_sha256
from ledgerline.serving import scoring
from ledgerline.serving.json_bodies import as_json
from ledgerline.serving.request_errors import RowsRefusedError
from ledgerline.serving.rows import Rows, output_rows
from ledgerline.serving.schema import INTEGERS, Schema, UnsupportedSignatureError, schema_of

# For fewer rows, the threads of a model take more time than they save. They also spin while they wait, which
# takes processor time from other requests.
MIN_THREADED_ROWS = 512

# A process loads one version at a time. Numpy reads the headers of arrays with `ast.literal_eval`, and in
# early releases of CPython 3.11 one of two threads that build syntax trees at the same time raises
# SystemError, "AST constructor recursion depth mismatch" (https://github.com/python/cpython/issues/106905).
_ONE_LOAD = threading.Lock()


@dataclass(frozen=True)
class LoadedModel:
    """A version in memory.

    Attributes:
        sha256: Hash of its files when they were loaded.
        experiment_id: The MLflow experiment of its training run; empty if unknown.
        model: The model; it takes the results of `Schema.model_input`.
        threads: Controller that limits its OpenMP threads.
    """

    version: Version
    sha256: str
    schema: Schema
    signature: ModelSignature
    example: Rows
    experiment_id: str
    loaded_at: datetime
    model: StoredModel
    # Created after the model, which loads the libraries that have threads.
    threads: ThreadpoolController = field(
        default_factory=lambda: ThreadpoolController().select(user_api="openmp")
    )

    @property
    def name(self) -> str:
        """The name of the registered model."""
        return self.version.name

    @property
    def training_run_id(self) -> str:
        """The Dagster run that trained it, whose trace has the same id; empty if it is not recorded."""
        return self.version.tags.get(RUN_ID_TAG, "")

    def predict(self, rows: Rows) -> Rows:
        """Return the prediction for rows; exceptions of the model are not caught."""
        with self.threads.limit(limits=1) if rows.count < MIN_THREADED_ROWS else nullcontext():
            return output_rows(self.model.answer(self.schema.model_input(rows)), rows.count)

    def predicts_its_example(self) -> bool:
        """Return whether the model predicts its own example; if it does, other rows that fail are invalid."""
        try:
            self.predict(self.example)
        except BaseException:  # noqa: BLE001 (models raise anything: a panic in Rust is not an Exception)
            return False
        return True


def load(version: Version, folder: Path, unpickle: bool, experiment_id: str) -> LoadedModel:
    """Load a version, after verifying that its files are those that were registered.

    With `unpickle`, any MLflow model may be loaded, which can run any code in its files.

    Raises:
        ModelRefusedError: The files differ, cannot be trusted or read, or have no supported signature; or the
            model fails on its own example.
    """
    subject = f"{version.name} version {version.number}"
    with _ONE_LOAD:
        sha256 = verified_sha256(version, folder)
        try:
            description = Model.load(str(folder))
            schema = schema_of(description.signature)
        except (MlflowException, OSError) as error:
            raise ModelRefusedError(f"{subject} cannot be read: {error}") from error
        except UnsupportedSignatureError as error:
            raise ModelRefusedError(f"{subject} cannot be served. {error}") from error
        stored = _stored(description, folder, unpickle)
        assert description.signature is not None  # noqa: S101 (schema_of requires it)
        loaded = LoadedModel(
            version=version,
            sha256=sha256,
            schema=schema,
            signature=description.signature,
            example=_example(description, folder, schema, subject),
            experiment_id=experiment_id,
            loaded_at=datetime.now(UTC),
            model=stored,
        )
        try:
            scoring.response_body(loaded.predict(loaded.example))
        except Exception as error:  # models raise anything
            raise ModelRefusedError(f"{subject} fails on its own input example: {error}") from error
        return loaded


def require_same_clients(new: LoadedModel, old: LoadedModel) -> None:
    """Make sure that clients of one version can use the other.

    Raises:
        ModelRefusedError: Clients would have to change.
    """
    problems = signatures.problems(new.signature, old.signature)
    if problems:
        raise ModelRefusedError(
            f"Clients of {old.name} version {old.version.number} cannot use version "
            f"{new.version.number}. {' '.join(problems)}"
        )


def _stored(description: Model, folder: Path, unpickle: bool) -> StoredModel:
    if not unpickle:
        return model_files.load(folder)
    if model_files.recorded_method(description) is not None:
        with suppress(ModelRefusedError):  # such as pickled ones
            return model_files.load(folder)
    # Load a model of any flavour as MLflow does, which can run code in its files.
    try:
        model = pyfunc.load_model(str(folder))
    except Exception as error:  # flavours raise errors of any type
        raise ModelRefusedError(f"The model cannot be loaded: {error}") from error
    signature = model.metadata.signature
    if signature is not None:
        # The rows are already checked. MLflow would check them again, and refuse missing integers and
        # booleans even where the signature allows them. The parameters of the signature stay.
        unchecked = copy.copy(signature)
        unchecked.inputs = None
        model.metadata.signature = unchecked
    return StoredModel(PYFUNC, model, PREDICT, model.predict)


def _example(description: Model, folder: Path, schema: Schema, subject: str) -> Rows:
    try:
        example: Any = description.load_input_example(str(folder))
    except Exception as error:  # MLflow's readers of examples raise different errors
        raise ModelRefusedError(f"The input example of {subject} cannot be read: {error}") from error
    if example is None:
        raise ModelRefusedError(f"{subject} has no input example to test it with; log it with one.")
    try:
        if isinstance(example, pd.DataFrame):
            types = {column.name: column.type for column in schema.columns}
            columns = {
                str(name): [_plain(value, types.get(str(name), "")) for value in example[name].tolist()]
                for name in example
            }
            return schema.rows(columns, len(example))
        return schema.array_rows(example)
    except RowsRefusedError as error:
        raise ModelRefusedError(
            f"The input example of {subject} does not fit its signature: {error}"
        ) from error


def _plain(value: Any, type_name: str) -> Any:
    """Convert a value of a data frame to a JSON value."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, float) and type_name in INTEGERS and value.is_integer():
        return int(value)  # in a column with missing values, pandas stores integers as floats
    with suppress(TypeError):
        return as_json(value)
    return value
