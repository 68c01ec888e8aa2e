"""Writes to one MLflow run, and leaves out what MLflow refuses. projection.py provides the values.

The status of a response does not distinguish a refusal from an outage: MLflow responds with 500 or 503 if its
database cannot store a value, and with 400 if the run was deleted. After a failure, a tag that MLflow has
accepted before is therefore written with the same call. If that succeeds, the values are the cause: they are
split in half until the refused values are found. If it fails, MLflow is the cause, and the first failure is
raised.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ledgerline.cleaning.texts import clean, shortened
from ledgerline.mlflow_runs import tags as mlflow_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

# One call accepts at most 1000 metrics, params and tags together (mlflow/utils/validation.py).
MAX_BATCH_METRICS = 800
MAX_BATCH_PARAMS = 100

MAX_PLAIN_LENGTH = 250  # characters of a value that is written in plain form after a refusal
MAX_REASON_LENGTH = 200

TOO_MANY_REQUESTS = 429
NOT_ALLOWED = (401, 403, 407)
SERVER_ERRORS = 500

Piece = TypeVar("Piece")


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error of MLflow or of its artifacts; 500 for an error without status."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.get_http_status_code()  # This is also 500 if the connection failed.
    return getattr(getattr(error, "response", None), "status_code", None) or SERVER_ERRORS


def is_no_fault_of_the_call(error: Exception) -> bool:
    """Return whether the same call may succeed later, because the server is unavailable or denies access."""
    status = status_of(error)
    return status >= SERVER_ERRORS or status == TOO_MANY_REQUESTS or status in NOT_ALLOWED


@dataclass
class RunWriter:
    """Writes to one MLflow run.

    Attributes:
        known: Names of parts that were refused earlier, which are not written again.
        left_out: Reason for each refused part, by the name of the part.
        written: Number of values that were written.
    """

    client: "MlflowClient"
    run_id: str
    known: frozenset[str] = frozenset()
    left_out: dict[str, str] = field(default_factory=dict)
    written: int = 0

    def log(self, metrics: "Sequence[Metric]", params: "Sequence[Param]", tags: "Sequence[RunTag]") -> None:
        """Write metrics, params and tags."""
        while metrics or params or tags:
            pieces = [*tags, *params[:MAX_BATCH_PARAMS], *metrics[:MAX_BATCH_METRICS]]
            self._write(pieces, self._log_batch, _named, _plainer)
            metrics, params, tags = metrics[MAX_BATCH_METRICS:], params[MAX_BATCH_PARAMS:], []

    def log_datasets(self, datasets: "Sequence[DatasetInput]") -> None:
        """Write datasets as inputs. A dataset whose columns are refused is written without them."""

        def write(some: "Sequence[DatasetInput]") -> None:
            self.client.log_inputs(self.run_id, datasets=list(some))

        self._write(datasets, write, lambda one: f"dataset {one.dataset.name}", _without_columns)

    def do(self, what: str, call: Callable[[], object]) -> None:
        """Make one call. If it is refused, it is listed as `what`."""
        self._write([call], lambda calls: calls[0](), lambda _: what)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Store files all at once, or one by one if that fails.

        Raises:
            Exception: The artifact store does not accept any of the files.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths: list[str] = []
            for name, content in files.items():
                try:
                    path = Path(folder, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    paths.append(name)
                except (OSError, ValueError) as error:  # A name that no file can have.
                    self._leave_out(f"file {name}", error)
            try:
                self.client.log_artifacts(self.run_id, folder)
            except Exception:  # noqa: BLE001 (artifact stores raise any error: each file is tried)
                self._log_each_file(folder, paths)
            self.written += len(files)

    def name_left_out(self, names: Iterable[str]) -> None:
        """Write the names of refused parts to a tag, or their hashes if MLflow refuses the names."""
        from mlflow.exceptions import MlflowException

        lines = sorted(names)
        for names_or_hashes in (lines, [_hash(line) for line in lines]):
            text = shortened("\n".join(names_or_hashes), mlflow_tags.MAX_TAG_LENGTH)
            try:
                self.client.set_tag(self.run_id, mlflow_tags.LEFT_OUT, text)
                return
            except MlflowException:
                if not self._is_there():
                    raise

    def _log_each_file(self, folder: str, names: Sequence[str]) -> None:
        refused: dict[str, Exception] = {}
        for name in names:
            parent, _, _ = name.rpartition("/")
            try:
                self.client.log_artifact(self.run_id, str(Path(folder, name)), parent or None)
            except Exception as error:
                refused[name] = error
                if len(refused) == len(names):
                    raise
        for name, error in refused.items():
            self._leave_out(f"file {name}", error)

    def _log_batch(self, pieces: "Sequence[Metric | Param | RunTag]") -> None:
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            self.run_id,
            [piece for piece in pieces if isinstance(piece, Metric)],
            [piece for piece in pieces if isinstance(piece, Param)],
            [piece for piece in pieces if isinstance(piece, RunTag)],
        )

    def _write(
        self,
        pieces: Sequence[Piece],
        write: Callable[[Sequence[Piece]], object],
        name: Callable[[Piece], str],
        plainer: Callable[[Piece], Piece | None] = lambda _: None,
    ) -> None:
        from mlflow.exceptions import MlflowException

        if self.known:
            pieces = [piece for piece in pieces if not {name(piece), _hash(name(piece))} & self.known]
        if not pieces:
            return
        try:
            write(pieces)
        except (MlflowException, ValueError) as error:
            if not self._is_there():
                raise
            if len(pieces) > 1:
                middle = len(pieces) // 2
                self._write(pieces[:middle], write, name, plainer)
                self._write(pieces[middle:], write, name, plainer)
                return
            self._write_one(pieces[0], write, name, plainer, error)
        else:
            self.written += len(pieces)

    def _write_one(
        self,
        piece: Piece,
        write: Callable[[Sequence[Piece]], object],
        name: Callable[[Piece], str],
        plainer: Callable[[Piece], Piece | None],
        refusal: Exception,
    ) -> None:
        """Write a refused value again, because MLflow may have been busy, and then in a plain form."""
        from mlflow.exceptions import MlflowException

        for one in (piece, plainer(piece)):
            if one is not None:
                try:
                    write([one])
                except (MlflowException, ValueError):
                    continue
                self.written += 1
                if one is not piece:
                    self._leave_out(name(piece), refusal)
                return
        if not self._is_recorded(piece):
            self._leave_out(name(piece), refusal)

    def _is_there(self) -> bool:
        """Return whether MLflow still accepts a tag that it has accepted before."""
        from mlflow.entities import RunTag
        from mlflow.exceptions import MlflowException

        try:
            # The same call is used, because others may work while it fails: with a proxy, or a locked table.
            self.client.log_batch(self.run_id, tags=[RunTag(mlflow_tags.KIND, mlflow_tags.DAGSTER_RUN)])
        except MlflowException:
            return False
        return True

    def _is_recorded(self, piece: object) -> bool:
        """Return whether a step or another observer has logged another value of a param."""
        from mlflow.entities import Param

        return isinstance(piece, Param) and piece.key in self.client.get_run(self.run_id).data.params

    def _leave_out(self, what: str, why: Exception) -> None:
        reason = " ".join(clean(str(why)).split())
        self.left_out[shortened(clean(what), MAX_PLAIN_LENGTH)] = shortened(reason, MAX_REASON_LENGTH)


def _hash(name: str) -> str:
    return f"sha256 {hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _named(piece: Any) -> str:
    return f"{type(piece).__name__.removeprefix('Run').lower()} {piece.key}"


def _plainer(piece: Any) -> Any:
    """Return a tag or a param with the beginning of its text in ASCII, which every database can store."""
    from mlflow.entities import Metric

    if isinstance(piece, Metric):
        return None
    plain = piece.value.encode("ascii", "backslashreplace").decode()
    return type(piece)(piece.key, shortened(plain, MAX_PLAIN_LENGTH))


def _without_columns(recorded: "DatasetInput") -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput

    dataset = recorded.dataset
    plain = Dataset(
        name=dataset.name, digest=dataset.digest, source_type=dataset.source_type, source=dataset.source
    )
    return DatasetInput(plain, recorded.tags)
