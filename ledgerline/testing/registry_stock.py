"""Creates registered models with tiny files, and evaluations of them, in a real MLflow."""

import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.mlflow_store import model_files, store
from ledgerline.registry import evidence, moves, promotion
from ledgerline.registry.history import REGISTRATION, Evaluation, History, Move
from ledgerline.registry.journal import Journal
from ledgerline.registry.promotion import Mode, Moved, Request
from ledgerline.registry.registry import Model, Registry
from ledgerline.registry.stages import STAGING
from ledgerline.registry.versions import SHA256_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "model/weights.txt"


def request(by: str = "ada", reason: str = "it is better", *, id: str = "") -> Request:  # noqa: A002
    """Return a request with this id, or with a new one."""
    return Request(by=by, reason=reason, run_id="", id=id or str(uuid.uuid4()))


@dataclass
class Stock:
    """Creates models in one MLflow.

    Attributes:
        uri: URI of MLflow.
        artifacts: Folder for files; None for the server's choice.
    """

    uri: str
    artifacts: Path | None
    client: "MlflowClient" = field(init=False)
    _experiment: str = field(init=False)
    _sources: dict[str, tuple[str, str, str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.client = store.connect(self.uri)
        folder = str(self.artifacts) if self.artifacts else None
        self._experiment = store.experiment_id(self.client, f"stock {uuid.uuid4()}", folder)

    def model(self, name: str, count: int = 1, *, weights: str = "weights") -> str:
        """Create a model with some versions, which all have the same files; return its name."""
        self.client.create_registered_model(name)
        for _ in range(count):
            self.version(name, weights=weights)
        return name

    def registered(self, name: str) -> Model:
        """Return a registered model as an object of the library."""
        return Registry(self.client).model(name)

    def version(self, name: str, *, weights: str = "weights") -> int:
        """Create another version of a model; return its number."""
        run_id, source, sha256 = self._source(weights)
        created = self.client.create_model_version(name, source, run_id, tags={SHA256_TAG: sha256})
        return int(created.version)

    def edit_files(self, weights: str, content: str) -> None:
        """Change the files of all versions with these weights."""
        self.client.log_text(self._source(weights)[0], content, FILE)

    def document(self, number: int, *, against: int | None = None, passed: bool = True) -> dict[str, Any]:
        """Return the document of an evaluation's evidence."""
        return {
            "version": number,
            "version_sha256": self._source("weights")[2],
            "against": against,
            "decision": evidence.PASSED if passed else evidence.REFUSED,
            "id": str(uuid.uuid4()),
        }

    def evaluate(
        self,
        name: str,
        number: int,
        *,
        against: int | None = None,
        broken: Sequence[str] = (),
        document: dict[str, Any] | None = None,
    ) -> Evaluation:
        """Evaluate a version, and record the evaluation."""
        evaluation = self.evaluation(number, against=against, broken=broken, document=document)
        promotion.record_evaluation(self.registered(name), evaluation)
        return evaluation

    def evaluation(
        self,
        number: int,
        *,
        against: int | None = None,
        broken: Sequence[str] = (),
        document: dict[str, Any] | None = None,
    ) -> Evaluation:
        """Evaluate a version, and store only the evidence."""
        sealed = evidence.seal(document or self.document(number, against=against, passed=not broken))
        run_id = self.run()
        self.client.log_text(run_id, sealed.content.decode(), evidence.FILE)
        return Evaluation(
            at=datetime.now(UTC),
            version=number,
            against=against,
            passed=not broken,
            broken_rules=list(broken),
            evidence=sealed.sha256,
            evidence_run_id=run_id,
            by="the evaluator",
        )

    def stage(self, name: str, number: int, *, id: str = "") -> moves.ReconciledModel:  # noqa: A002
        """Move the alias `staging` to a version."""
        reconciled = self.registered(name).reconcile()
        before = reconciled.history.version_with_alias(STAGING)
        return moves.move(reconciled, self.staging(number, before, id=id))

    def staging(self, number: int | None, before: int | None, *, id: str = "") -> Move:  # noqa: A002
        """Return a move of the alias `staging`."""
        now = datetime.now(UTC)
        return Move(
            now, STAGING, before, number, REGISTRATION, "the trainer", request=id or str(uuid.uuid4())
        )

    def promote(
        self, name: str, number: int, requested: Request | None = None, mode: Mode = Mode.automatic
    ) -> Moved:
        """Promote a version that was evaluated."""
        return promotion.promote(self.registered(name), number, requested or request(), mode)

    def serve(self, name: str, number: int) -> Moved:
        """Evaluate a version against production, and promote it."""
        production = self.registered(name).reconcile().history.version_with_alias("production")
        self.evaluate(name, number, against=production)
        return self.promote(name, number)

    def rollback(self, name: str, to: int | None = None, requested: Request | None = None) -> Moved:
        """Roll production back."""
        return promotion.rollback(self.registered(name), to, requested or request())

    def run(self) -> str:
        """Create an MLflow run; return its id."""
        return self.client.create_run(self._experiment).info.run_id

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version that each alias names."""
        return dict(self.registered(name).alias_state().aliases)

    def tags(self, name: str, number: int) -> dict[str, str]:
        """Return the tags of a version."""
        return dict(self.registered(name).version(number).tags)

    def journal(self, name: str) -> Journal:
        """Return the journal of a model that has one."""
        journal = Journal.named(self.registered(name))
        assert journal is not None
        return journal

    def history(self, name: str) -> History:
        """Return the entries of a model's journal."""
        return self.journal(name).read()

    def require_agreement(self, name: str) -> None:
        """Assert that aliases, tags and journal agree, and that no move is pending."""
        history = self.history(name)
        assert history.pending is None
        assert self.registered(name).inconsistencies() == []
        assert self.registered(name).alias_state().journal_entry == history.head

    def _source(self, weights: str) -> tuple[str, str, str]:
        if weights not in self._sources:
            run_id = self.run()
            self.client.log_text(run_id, weights, FILE)
            location = f"{self.client.get_run(run_id).info.artifact_uri}/model"
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "weights.txt").write_text(weights)
                sha256 = model_files.folder_sha256(Path(folder))
            self._sources[weights] = run_id, location, sha256
        return self._sources[weights]
