"""The journal of a registered model: each judgement, approval and move of an alias, in order, for good.

It is one MLflow run whose parameters are the entries. MLflow refuses to change a parameter, so what was
written stays; and of two writers that want the same number one is refused, so that writing an entry is the
compare-and-set that MLflow does not have for aliases. What entries mean for the aliases: moves.py.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from ledgerline.registry.history import OUTSIDE, Approval, End, Entry, Evaluation, History, Move

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_NAME = "journal"
MAX_ENTRY_LENGTH = 6000  # of a parameter, in MLflow's database
MAX_REASON_LENGTH = 1000
END = ".end"
MODEL_CREATED = "model.created"  # the parameter that binds a journal to its model


class JournalError(Exception):
    """The journal cannot be read or added to; the message says which and what to do."""


class EntryTakenError(Exception):
    """Somebody else wrote the entry with this number first."""


KINDS: Mapping[str, type[Move | Evaluation | Approval]] = {
    "move": Move,
    "judgement": Evaluation,
    "approval": Approval,
}


class Journal:
    """The journal of one registered model.

    Args:
        client: An open MLflow client.
        run_id: The MLflow run that holds it; `opened` and `found` know it.
        model_created: When the model that it is bound to was created, in milliseconds; None: it is not bound.
        named_after: The model by whose name it was found; empty: it was found by other means.
    """

    def __init__(
        self, client: "MlflowClient", run_id: str, model_created: int | None = None, named_after: str = ""
    ) -> None:
        self._client = client
        self.run_id = run_id
        self.model_created = model_created
        self.named_after = named_after
        self._hashes: dict[int, str] = {}  # of entries, which do not change

    @classmethod
    def found(cls, client: "MlflowClient", model: str) -> Self | None:
        """Return the journal that has the name of a model's, which may be an earlier model's: binding.py.

        Returns:
            None if no journal has this name.

        Raises:
            JournalError: It was deleted.
        """
        experiment = client.get_experiment_by_name(experiment_name(model))
        if experiment is None:
            return None
        runs = client.search_runs([experiment.experiment_id], f"run_name = '{RUN_NAME}'", max_results=2)
        if experiment.lifecycle_stage != "active" or len(runs) != 1:
            raise JournalError(
                f"The journal of {model} is not there: the MLflow experiment {experiment.name!r} "
                f"({experiment.experiment_id}) should have one run named {RUN_NAME!r}, and it or the run was "
                "deleted or doubled. Restore it (`mlflow experiments restore`, `mlflow runs restore`)."
            )
        return cls.of_run(client, runs[0], model)

    @classmethod
    def of_run(cls, client: "MlflowClient", run: "Run", named_after: str = "") -> Self:
        """Return the journal that a run holds."""
        created = run.data.params.get(MODEL_CREATED, "")
        return cls(client, run.info.run_id, int(created) if created.isdecimal() else None, named_after)

    @classmethod
    def opened(cls, client: "MlflowClient", model: str, model_created: int | None = None) -> Self:
        """Return the journal with the name of a model's; begin it once, when it is missing.

        Args:
            client: An open MLflow client.
            model: The registered model.
            model_created: Binds a journal that is begun to the model that was created then.
        """
        from mlflow.exceptions import MlflowException

        known = cls.found(client, model)
        if known is not None:
            return known
        # Prepared under a name of its own, so that taking the name that everybody looks for is one step.
        name = experiment_name(model)
        experiment = client.create_experiment(f"{name} {uuid.uuid4()}")
        run = client.create_run(experiment, run_name=RUN_NAME, tags={"mlflow.note.content": _NOTE})
        begun = cls(client, run.info.run_id, named_after=model)
        if model_created is not None:
            begun.bind(model_created)
        client.set_terminated(run.info.run_id)
        try:
            client.rename_experiment(experiment, name)
        except MlflowException:
            client.delete_experiment(experiment)
            known = cls.found(client, model)  # somebody was quicker
            if known is None:
                raise
            return known
        return begun

    def bind(self, model_created: int) -> None:
        """Write down whose journal this is, for good."""
        from contextlib import suppress

        with suppress(EntryTakenError):
            self._write(MODEL_CREATED, str(model_created))
        written = self._client.get_run(self.run_id).data.params[MODEL_CREATED]
        self.model_created = int(written)

    def read(self, seal: str = "") -> History:
        """All entries, after checking that nobody changed them.

        Each entry holds the hash of the one before. That tells nothing of the last one, nor of how moves
        ended; a seal does. Who can write to the database can also write all hashes and the seal anew: this
        finds edits, and no forger who knows how it is done.

        Args:
            seal: What was the seal of an entry before this is called; empty: not known.

        Raises:
            JournalError: Entries are missing or were changed: that was done in the database.
        """
        params = self._client.get_run(self.run_id).data.params
        # Whatever else somebody logged there cannot be taken away either, and is passed over.
        numbers = sorted(int(name) for name in params if re.fullmatch("[0-9]{6,}", name))
        if numbers != list(range(1, len(numbers) + 1)):
            raise self._changed(f"Entries are missing: there are {numbers}")
        entries: list[Entry] = []
        previous = digest = ""
        for number in numbers:
            text, end = params[_key(number)], params.get(_key(number) + END)
            try:
                document = json.loads(text)
                follows = document.pop("previous") == previous
                entry = _entry(number, document, end)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise self._changed(f"Entry {number} cannot be read ({error})") from error
            if not follows:
                raise self._changed(f"Entry {number} does not follow from the entry before it")
            previous = self._hashes[number] = _sha256(text)
            digest = _sha256(f"{digest} {text} {end or ''}")
            entries.append(replace(entry, seal=f"{number} {digest}"))
        if seal and all(entry.seal != seal for entry in entries):
            last = seal.partition(" ")[0]
            raise self._changed(
                f"The entries up to {last}, or how they ended, are not what the model's tag seals"
            )
        return History(entries)

    def _changed(self, problem: str) -> JournalError:
        return JournalError(
            f"The journal in MLflow run {self.run_id} was changed in MLflow's database. {problem}. "
            "Restore it from a backup."
        )

    def append(self, after: int, what: Move | Evaluation | Approval) -> Entry:
        """Write an entry behind the entry with the number `after`.

        Raises:
            EntryTakenError: There is an entry behind it already.
            JournalError: The entry is too long.
        """
        previous = ""
        if after:
            if after not in self._hashes:
                self.read()
            previous = self._hashes[after]
        kind = next(name for name, type_ in KINDS.items() if isinstance(what, type_))
        # An id of its own: the same text twice would be no conflict to MLflow.
        document = {"kind": kind, "id": str(uuid.uuid4()), "previous": previous, **asdict(what)}
        text = _text(document)
        self._write(_key(after + 1), text)
        self._hashes[after + 1] = _sha256(text)
        return Entry(after + 1, what, _end(what, None))

    def add(self, what: Evaluation | Approval) -> Entry:
        """Write an entry at the end, wherever that is by now."""
        while True:
            try:
                return self.append(self.read().head, what)
            except EntryTakenError:
                continue

    def end(self, number: int, end: End) -> None:
        """Say how a move ended; if somebody else has said so already, that stands."""
        from contextlib import suppress

        with suppress(EntryTakenError):
            self._write(_key(number) + END, _text(asdict(end)))

    def _write(self, key: str, text: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode

        if len(text) > MAX_ENTRY_LENGTH:
            raise JournalError(
                f"The entry is {len(text)} characters long, {MAX_ENTRY_LENGTH} are possible. Say it shorter."
            )
        try:
            self._client.log_param(self.run_id, key, text)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(INVALID_PARAMETER_VALUE):
                raise
            if key in self._client.get_run(self.run_id).data.params:
                raise EntryTakenError(key) from error
            raise JournalError(
                f"The journal in MLflow run {self.run_id} cannot be written: {_first_line(error)} "
                "If it was deleted, restore it (`mlflow experiments restore`, `mlflow runs restore`)."
            ) from error


def experiment_name(model: str) -> str:
    """The MLflow experiment that holds the journal of a model."""
    return f"{model} journal"


_NOTE = (
    "Every judgement, approval and move of an alias of this model, as parameters, which cannot be changed. "
    "`ledgerline registry history` prints it. Deleting it stops promotions until it is restored."
)


def _key(number: int) -> str:
    return f"{number:06}"


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, default=_json, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    raise TypeError(f"{type(value)} cannot be written in a journal")


def _entry(number: int, document: dict[str, Any], end: str | None) -> Entry:
    type_ = KINDS[document.pop("kind")]
    document.pop("id")
    what = type_(**{name: _value(name, value) for name, value in document.items()})
    return Entry(number, what, _end(what, end))


def _end(what: Move | Evaluation | Approval, end: str | None) -> End | None:
    if isinstance(what, Move) and what.cause == OUTSIDE:
        return End(what.at, moved=True)  # it was found ended
    if end is None:
        return None
    document = json.loads(end)
    return End(datetime.fromisoformat(document["at"]), document["moved"])


def _value(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in ("at", "not_before") and value else value


def _first_line(error: Exception) -> str:
    """Without MLflow's advice on how to log parameters."""
    return str(error).partition("\n")[0]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
