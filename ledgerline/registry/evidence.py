"""The evidence of a judgement: one document, sealed by its hash, which is in the journal."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.registry import versions
from ledgerline.registry.history import Evaluation
from ledgerline.registry.versions import SHA256_TAG, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "evidence.json"

# Tags of the version that was judged.
EVIDENCE_TAG = "evidence_sha256"
EVIDENCE_RUN_TAG = "evidence_run_id"
DECISION_TAG = "decision"
APPROVED_BY_TAG = "approved_by"

PASSED, REFUSED = "passed", "refused"


class EvidenceError(Exception):
    """The evidence is missing, or not what was sealed."""


@dataclass(frozen=True)
class Sealed:
    """A document and its seal.

    Attributes:
        content: Canonical JSON: sorted names, no spaces, UTF-8, no numbers that are none.
        sha256: Of the content.
    """

    content: bytes
    sha256: str


def seal(document: Mapping[str, Any]) -> Sealed:
    """Write a document in the one way that has this hash.

    Raises:
        ValueError: It holds NaN or infinity, which JSON has not.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    content = text.encode()
    return Sealed(content, hashlib.sha256(content).hexdigest())


def tags_of(evaluation: Evaluation) -> dict[str, str | None]:
    """What a version says of its last judgement; an approval of an earlier one no longer counts.

    In the order of writing: were that approval taken away last, it could be taken for one of this judgement.
    """
    return {
        APPROVED_BY_TAG: None,
        EVIDENCE_TAG: evaluation.evidence,
        EVIDENCE_RUN_TAG: evaluation.evidence_run_id,
        DECISION_TAG: PASSED if evaluation.passed else REFUSED,
    }


def verified(client: "MlflowClient", name: str, evaluation: Evaluation) -> dict[str, Any]:
    """The document of a judgement, after checking that it is the one that was sealed.

    Raises:
        EvidenceError: The document, or what the version says of it, was changed or is gone.
    """
    subject = f"The evidence of {name} version {evaluation.version}"
    tags = versions.version(client, name, evaluation.version).tags
    tagged = tags.get(EVIDENCE_TAG)
    if tagged != evaluation.evidence:
        raise EvidenceError(
            f"{subject} has sha256 {evaluation.evidence} in the journal, and {tagged or 'nothing'} in the "
            f"tag {EVIDENCE_TAG} of the version. Compare again: `ledgerline registry compare`."
        )
    return document(client, name, evaluation)


def document(client: "MlflowClient", name: str, evaluation: Evaluation) -> dict[str, Any]:
    """The document of a judgement, also of one that is not the version's last.

    Raises:
        EvidenceError: It was changed or is gone.
    """
    from mlflow.exceptions import MlflowException

    subject = f"The evidence of {name} version {evaluation.version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(evaluation.evidence_run_id, FILE, folder)
            content = Path(path).read_bytes()
        except (MlflowException, OSError) as error:
            raise EvidenceError(
                f"{subject} cannot be read from MLflow run {evaluation.evidence_run_id}: {error}. "
                "Compare again: `ledgerline registry compare`."
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != evaluation.evidence:
        raise EvidenceError(
            f"{subject} was edited: {FILE} in MLflow run {evaluation.evidence_run_id} has sha256 {found}, "
            f"sealed was {evaluation.evidence}. Compare again: `ledgerline registry compare`."
        )
    return json.loads(content)


def require_same_files(version: Version, document: Mapping[str, Any]) -> None:
    """Make sure that a version says of its files what the evidence says.

    Raises:
        EvidenceError: They have another sha256, or none was recorded.
    """
    tagged, evaluated = version.tags.get(SHA256_TAG), document.get("version_sha256")
    if not tagged:
        raise EvidenceError(
            f"Version {version.number} of {version.name} has no recorded sha256 of its files, so they cannot "
            "be compared with those that were judged. Register it by a training run."
        )
    if tagged != evaluated:
        raise EvidenceError(
            f"Version {version.number} of {version.name} says of its files that they have sha256 {tagged}; "
            f"judged were files with {evaluated}."
        )
