"""A version in memory, ready to answer: verified, loaded and tried. When it takes over: follower.py."""

import base64
import copy
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation import signatures
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.mlflow_store import model_files
from ledgerline.mlflow_store.stored_model import PREDICT, PYFUNC, ModelRefusedError, StoredModel
from ledgerline.registry.versions import SHA256_TAG, Version
from ledgerline.serving import scoring
from ledgerline.serving.rows import Rows, answered
from ledgerline.serving.schema import WHOLE, RowsRefusedError, Schema, UnsupportedSignatureError, schema_of

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature
    from threadpoolctl import ThreadpoolController

# With fewer, threads of a model cost more time to start and to wait for than they save; and they spin while
# they wait, which takes the processor from other requests.
MANY_ROWS = 512

# A process loads one version at a time. Numpy reads the headers of arrays with `ast.literal_eval`, and
# in early releases of CPython 3.11 two threads that build syntax trees at once disturb each other: one raises
# SystemError, "AST constructor recursion depth mismatch" (https://github.com/python/cpython/issues/106905).
_ONE_LOAD = threading.Lock()


def _openmp() -> "ThreadpoolController":
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")


@dataclass(frozen=True)
class LoadedModel:
    """What answers.

    Attributes:
        version: The version in the registry.
        sha256: Of its files, as found when they were loaded.
        schema: What it takes.
        signature: The same as MLflow has it, and what it gives.
        example: The rows that it was saved with, and answers.
        experiment_id: The MLflow experiment of its training run; empty: not known.
        loaded_at: When it was loaded.
        model: The model; it takes what `Schema.model_input` gives.
        threads: Says how many threads of OpenMP it may use.
    """

    version: Version
    sha256: str
    schema: Schema
    signature: "ModelSignature"
    example: Rows
    experiment_id: str
    loaded_at: datetime
    model: StoredModel
    # Made with the model: only then the libraries are there that have threads.
    threads: "ThreadpoolController" = field(default_factory=_openmp)

    @property
    def name(self) -> str:
        """The registered model."""
        return self.version.name

    @property
    def training_run_id(self) -> str:
        """The Dagster run that trained it, whose trace has the same id; empty: not recorded."""
        return self.version.tags.get(RUN_ID_TAG, "")

    def predict(self, rows: Rows) -> Rows:
        """What the model says; raises what the model raises."""
        with self.threads.limit(limits=1) if rows.count < MANY_ROWS else nullcontext():
            return answered(self.model.answer(self.schema.model_input(rows)), rows.count)

    def answers_its_example(self) -> bool:
        """Whether it works at all: then rows that it fails on are at fault, and otherwise it is."""
        try:
            self.predict(self.example)
        except BaseException:  # noqa: BLE001 (models raise anything: a panic in Rust is no Exception)
            return False
        return True


def load(version: Version, folder: Path, unpickle: bool, experiment_id: str) -> LoadedModel:
    """Load the files of a version, after checking that they are those that were registered.

    Args:
        version: As the registry has it.
        folder: Its files.
        unpickle: Whether any MLflow model may be loaded, which can run any code that is in its files.
        experiment_id: The MLflow experiment of its training run; empty: not known.

    Raises:
        ModelRefusedError: The files differ, cannot be trusted or read, have no usable signature, or the model
            does not answer its own example.
    """
    with _ONE_LOAD:
        return _load(version, folder, unpickle, experiment_id)


def _load(version: Version, folder: Path, unpickle: bool, experiment_id: str) -> LoadedModel:
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    subject = f"{version.name} version {version.number}"
    found = model_files.folder_sha256(folder)
    if version.tags.get(SHA256_TAG) != found:
        raise ModelRefusedError(
            f"{subject} is not what was registered: its files have sha256 {found}, recorded is "
            f"{version.tags.get(SHA256_TAG) or 'nothing'}."
        )
    try:
        description = Model.load(str(folder))
        schema = schema_of(description.signature)
    except (MlflowException, OSError) as error:
        raise ModelRefusedError(f"{subject} cannot be read: {error}") from error
    except UnsupportedSignatureError as error:
        raise ModelRefusedError(f"{subject} cannot be served: {error}.") from error
    stored = _stored(description, folder, unpickle)
    assert description.signature is not None  # noqa: S101 (schema_of has looked)
    example = _example(description, folder, schema, subject)
    loaded = LoadedModel(
        version=version,
        sha256=found,
        schema=schema,
        signature=description.signature,
        example=example,
        experiment_id=experiment_id,
        loaded_at=datetime.now(UTC),
        model=stored,
    )
    try:
        scoring.answer(loaded.predict(example))
    except Exception as error:  # models raise anything
        raise ModelRefusedError(f"{subject} does not answer its own input example: {error}") from error
    return loaded


def require_same_clients(new: LoadedModel, old: LoadedModel) -> None:
    """Make sure that whoever calls one version can call the other.

    Raises:
        ModelRefusedError: They would have to change.
    """
    problems = signatures.problems(new.signature, old.signature)
    if problems:
        raise ModelRefusedError(
            f"A client of {old.name} version {old.version.number} cannot use version "
            f"{new.version.number}. {' '.join(problems)}"
        )


def _stored(description: "Model", folder: Path, unpickle: bool) -> StoredModel:
    if not unpickle:
        return model_files.load(folder)
    if model_files.recorded_method(description) is not None:
        with suppress(ModelRefusedError):  # pickled, for one
            return model_files.load(folder)
    return _any_model(folder)


def _any_model(folder: Path) -> StoredModel:
    """Load a model of any flavour, as MLflow does, with whatever code its files bring along."""
    from mlflow import pyfunc

    try:
        model = pyfunc.load_model(str(folder))
    except Exception as error:  # whatever the flavour raises
        raise ModelRefusedError(f"The model cannot be loaded: {error}") from error
    signature = model.metadata.signature
    if signature is not None:
        # The rows are checked by then. MLflow would do it again, and it refuses gaps in columns of whole
        # numbers and truth values, though the signature says that they may be missing. Its parameters stay.
        unchecked = copy.copy(signature)
        unchecked.inputs = None
        model.metadata.signature = unchecked
    return StoredModel(PYFUNC, model, PREDICT, model.predict)


def _example(description: "Model", folder: Path, schema: Schema, subject: str) -> Rows:
    import pandas as pd

    try:
        example: Any = description.load_input_example(str(folder))
    except Exception as error:  # what MLflow's readers of examples raise differs by kind
        raise ModelRefusedError(f"The input example of {subject} cannot be read: {error}") from error
    if example is None:
        raise ModelRefusedError(f"{subject} has no input example to be tried with; log it with one.")
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
        raise ModelRefusedError(f"The input example of {subject} is not what it takes: {error}.") from error


def _plain(value: Any, type_name: str) -> Any:
    """Return a value of a frame as JSON would have it."""
    import pandas as pd

    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, float) and type_name in WHOLE and value.is_integer():
        return int(value)  # beside a gap, pandas has whole numbers as floats
    return value
