"""The evidence of an evaluation: one document in an MLflow run, sealed by its hash in the journal."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledgerline.registry.errors import RegistryError
from ledgerline.registry.history import Evaluation
from ledgerline.registry.versions import SHA256_TAG, RegisteredModel, Version

FILE = "evidence.json"

# Tags of the version that was evaluated.
EVIDENCE_TAG = "evidence_sha256"
EVIDENCE_RUN_TAG = "evidence_run_id"
DECISION_TAG = "decision"
APPROVED_BY_TAG = "approved_by"

PASSED, REFUSED = "passed", "refused"


class EvidenceError(RegistryError):
    """The evidence is missing, or differs from what was sealed."""


@dataclass(frozen=True)
class Sealed:
    """A document as canonical JSON (sorted names, no spaces, UTF-8, no NaN or infinity), and its sha256."""

    content: bytes
    sha256: str


def seal(document: Mapping[str, Any]) -> Sealed:
    """Return a document as canonical JSON, with its hash; raise ValueError for NaN and infinity."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    content = text.encode()
    return Sealed(content, hashlib.sha256(content).hexdigest())


def tags_of(evaluation: Evaluation) -> dict[str, str | None]:
    """Return the tags of a version after an evaluation; the approval of an earlier evaluation is deleted.

    They are in the order of writing: if the earlier approval were deleted last, it could be taken for an
    approval of this evaluation.
    """
    return {
        APPROVED_BY_TAG: None,
        EVIDENCE_TAG: evaluation.evidence,
        EVIDENCE_RUN_TAG: evaluation.evidence_run_id,
        DECISION_TAG: PASSED if evaluation.passed else REFUSED,
    }


def verified(model: RegisteredModel, version: Version, evaluation: Evaluation) -> dict[str, Any]:
    """Return the document of a version's last evaluation, after checking that it is the sealed one.

    Raises:
        EvidenceError: The document, or the tag of the version that names it, was changed or is missing.
    """
    tagged = version.tags.get(EVIDENCE_TAG)
    if tagged != evaluation.evidence:
        raise EvidenceError(
            f"The evidence of {model.name} version {version.number} has sha256 {evaluation.evidence} in the "
            f"journal, and {tagged or 'none'} in the tag {EVIDENCE_TAG} of the version.",
            _compare_again(model.name, evaluation.version),
        )
    return document(model, evaluation)


def document(model: RegisteredModel, evaluation: Evaluation) -> dict[str, Any]:
    """Return the document of an evaluation, which need not be the last one of its version.

    Raises:
        EvidenceError: The document was changed or is missing.
    """
    from mlflow.exceptions import MlflowException

    subject = f"The evidence of {model.name} version {evaluation.version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = model.client.download_artifacts(evaluation.evidence_run_id, FILE, folder)
            content = Path(path).read_bytes()
        except (MlflowException, OSError) as error:
            raise EvidenceError(
                f"{subject} cannot be read from MLflow run {evaluation.evidence_run_id}: {error}.",
                _compare_again(model.name, evaluation.version),
            ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != evaluation.evidence:
        raise EvidenceError(
            f"{subject} was edited: {FILE} in MLflow run {evaluation.evidence_run_id} has sha256 {sha256}, "
            f"and the journal records {evaluation.evidence}.",
            _compare_again(model.name, evaluation.version),
        )
    return json.loads(content)


def require_same_files(version: Version, document: Mapping[str, Any]) -> None:
    """Require that a version and the evidence record the same hash of the version's files.

    Raises:
        EvidenceError: The version records a different hash, or no hash.
    """
    tagged, evaluated = version.tags.get(SHA256_TAG), document.get("version_sha256")
    if not tagged:
        raise EvidenceError(
            f"Version {version.number} of {version.name} has no recorded sha256 of its files, so they cannot "
            "be compared with those that were evaluated.",
            "Register it by a training run.",
        )
    if tagged != evaluated:
        raise EvidenceError(
            f"Version {version.number} of {version.name} records sha256 {tagged} of its files, and files "
            f"with sha256 {evaluated} were evaluated.",
            _compare_again(version.name, version.number),
        )


def _compare_again(model: str, version: int) -> str:
    return f"Compare it again: `ledgerline registry compare {model} --version {version}`."
