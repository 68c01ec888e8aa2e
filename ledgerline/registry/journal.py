"""The journal of a registered model: each evaluation, approval and move of an alias, in order, append-only.

The journal is one MLflow run whose parameters are the entries. MLflow refuses to change a parameter, so
entries are permanent. If two writers append an entry with the same number, one of them is refused. Appending
an entry therefore is the compare-and-set that MLflow does not have for aliases. moves.py moves aliases by the
entries.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from ledgerline.registry.errors import RegistryError
from ledgerline.registry.history import OUTSIDE, Approval, End, Entry, Evaluation, History, Move
from ledgerline.registry.versions import RegisteredModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_NAME = "journal"
MAX_ENTRY_LENGTH = 6000  # MLflow's limit for parameters
MAX_REASON_LENGTH = 1000
END = ".end"
MODEL_CREATED = "model.created"  # the parameter that binds a journal to its model


class JournalError(RegistryError):
    """The journal cannot be read or appended to."""


class EntryTakenError(RegistryError):
    """Another process wrote the entry with this number first."""


KINDS: Mapping[str, type[Move | Evaluation | Approval]] = {
    "move": Move,
    "judgement": Evaluation,
    "approval": Approval,
}


class Journal:
    """The journal of one registered model.

    Args:
        run_id: MLflow run that stores the entries; `opened` and `named` return it.
        model_created: Creation time of the model it is bound to, in milliseconds; None if it is unbound.
        named_after: Model by whose name it was found; empty if it was found by its run.
    """

    def __init__(
        self, client: "MlflowClient", run_id: str, model_created: int | None = None, named_after: str = ""
    ) -> None:
        self._client = client
        self.run_id = run_id
        self.model_created = model_created
        self.named_after = named_after
        self._hashes: dict[int, str] = {}  # hashes of entries, which do not change

    @classmethod
    def named(cls, model: RegisteredModel) -> Self | None:
        """Return the journal that is stored under the name of a model; None if no journal has this name.

        It may belong to an earlier model of that name, which binding.py checks.

        Raises:
            JournalError: The journal was deleted.
        """
        client = model.client
        experiment = client.get_experiment_by_name(experiment_name(model.name))
        if experiment is None:
            return None
        runs = client.search_runs([experiment.experiment_id], f"run_name = '{RUN_NAME}'", max_results=2)
        if experiment.lifecycle_stage != "active" or len(runs) != 1:
            raise JournalError(
                f"The journal of {model.name} is missing: the MLflow experiment {experiment.name!r} "
                f"({experiment.experiment_id}) should have exactly one run named {RUN_NAME!r}, and the "
                "experiment or the run was deleted, or there are several runs.",
                _RESTORE,
            )
        return cls.of_run(client, runs[0], model.name)

    @classmethod
    def of_run(cls, client: "MlflowClient", run: "Run", named_after: str = "") -> Self:
        """Return the journal that a run stores."""
        created = run.data.params.get(MODEL_CREATED, "")
        return cls(client, run.info.run_id, int(created) if created.isdecimal() else None, named_after)

    @classmethod
    def opened(cls, model: RegisteredModel, model_created: int | None = None) -> Self:
        """Return the journal stored under the name of a model; create and bind it if it is missing."""
        from mlflow.exceptions import MlflowException

        existing = cls.named(model)
        if existing is not None:
            return existing
        # Prepared under another name, so that other processes see either no journal or a complete one.
        client, name = model.client, experiment_name(model.name)
        experiment = client.create_experiment(f"{name} {uuid.uuid4()}")
        run = client.create_run(experiment, run_name=RUN_NAME, tags={"mlflow.note.content": _NOTE})
        begun = cls(client, run.info.run_id, named_after=model.name)
        if model_created is not None:
            begun.bind(model_created)
        client.set_terminated(run.info.run_id)
        try:
            client.rename_experiment(experiment, name)
        except MlflowException:
            client.delete_experiment(experiment)
            existing = cls.named(model)  # another process has opened it
            if existing is None:
                raise
            return existing
        return begun

    def bind(self, model_created: int) -> None:
        """Bind the journal to the model that was created at this time; the binding cannot be changed."""
        with suppress(EntryTakenError):
            self._write(MODEL_CREATED, str(model_created))
        self.model_created = int(self._client.get_run(self.run_id).data.params[MODEL_CREATED])

    def read(self, seal: str = "") -> History:
        """Return all entries, after checking that they are unchanged.

        Each entry contains the hash of the entry before it. These hashes cover neither the last entry nor the
        ends of moves; a seal covers both. With write access to the database, all hashes and the seal can be
        recomputed, so this check detects edits and not a deliberate forgery.

        Args:
            seal: An earlier seal of an entry; empty if none is known.

        Raises:
            JournalError: Entries were deleted or changed in MLflow's database.
        """
        params = self._client.get_run(self.run_id).data.params
        # Other parameters of the run cannot be deleted either, and are ignored.
        numbers = sorted(int(name) for name in params if re.fullmatch("[0-9]{6,}", name))
        if numbers != list(range(1, len(numbers) + 1)):
            raise self._changed(f"Entries are missing; the existing ones are {numbers}")
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
                f"The entries up to {last}, or the ends of their moves, do not match the seal in the "
                "model's tag"
            )
        return History(entries)

    def _changed(self, problem: str) -> JournalError:
        return JournalError(
            f"The journal in MLflow run {self.run_id} was changed in MLflow's database. {problem}.",
            "Restore it from a backup.",
        )

    def append(self, after: int, record: Move | Evaluation | Approval) -> Entry:
        """Write an entry after the entry with the number `after`.

        Raises:
            EntryTakenError: That entry has a successor already.
            JournalError: The entry is too long.
        """
        previous = ""
        if after:
            if after not in self._hashes:
                self.read()
            previous = self._hashes[after]
        kind = next(name for name, type_ in KINDS.items() if isinstance(record, type_))
        # The id makes each text unique: MLflow accepts the same value of a parameter twice.
        text = _text({"kind": kind, "id": str(uuid.uuid4()), "previous": previous, **asdict(record)})
        self._write(_key(after + 1), text)
        self._hashes[after + 1] = _sha256(text)
        return Entry(after + 1, record, _end(record, None))

    def add(self, record: Evaluation | Approval) -> Entry:
        """Write an entry after the current last one."""
        while True:
            try:
                return self.append(self.read().head, record)
            except EntryTakenError:
                continue

    def end(self, number: int, end: End) -> None:
        """Write the end of a move; an end that another process wrote first is kept."""
        with suppress(EntryTakenError):
            self._write(_key(number) + END, _text(asdict(end)))

    def _write(self, key: str, text: str) -> None:
        from mlflow.exceptions import MlflowException

        if len(text) > MAX_ENTRY_LENGTH:
            raise JournalError(
                f"The entry has {len(text)} characters, and the limit is {MAX_ENTRY_LENGTH}.",
                "Shorten the reason.",
            )
        try:
            self._client.log_param(self.run_id, key, text)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if key in self._client.get_run(self.run_id).data.params:
                raise EntryTakenError(f"Another process wrote entry {key} first.") from error
            reason = str(error).partition("\n")[0]  # MLflow's advice on how to log parameters follows.
            raise JournalError(
                f"The journal in MLflow run {self.run_id} cannot be written: {reason}", _RESTORE
            ) from error


def experiment_name(model: str) -> str:
    """Return the name of the MLflow experiment that stores the journal of a model."""
    return f"{model} journal"


_RESTORE = "If it was deleted, restore it (`mlflow experiments restore`, `mlflow runs restore`)."

_NOTE = (
    "Every evaluation, approval and move of an alias of this model, as parameters, which cannot be changed. "
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
    for name in ("at", "not_before"):
        if document.get(name):
            document[name] = datetime.fromisoformat(document[name])
    record = type_(**document)
    return Entry(number, record, _end(record, end))


def _end(record: Move | Evaluation | Approval, end: str | None) -> End | None:
    if isinstance(record, Move) and record.cause == OUTSIDE:
        return End(record.at, moved=True)  # it had ended before it was detected
    if end is None:
        return None
    document = json.loads(end)
    return End(datetime.fromisoformat(document["at"]), document["moved"])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
