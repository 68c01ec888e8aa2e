"""Describes a served model as JSON: the active version, its training run, and the refused version."""

from datetime import UTC, datetime
from typing import Any

from ledgerline.ledger import ids
from ledgerline.ledger.links import Links
from ledgerline.serving.follower import Served


def alias_state(served: Served) -> dict[str, Any]:
    """Return the active version, the refused version with its reason, and the state of the registry."""
    refusal, polled_at = served.refusal, served.polled_at
    age = None if polled_at is None else round((datetime.now(UTC) - polled_at).total_seconds(), 3)
    return {
        "alias": served.followed.alias,
        "version": served.current.version.number if served.current else None,
        "refused": None
        if refusal is None
        else {"version": refusal.number, "reason": refusal.reason, "since": refusal.at.isoformat()},
        "registry": served.problem or "followed",
        "registry_response_age_seconds": age,
    }


def model(served: Served, links: Links) -> dict[str, Any]:
    """Return the active version, with links to its training run."""
    state: dict[str, Any] = {"name": served.followed.name, **alias_state(served)}
    loaded = served.current
    if loaded is None:
        return state
    version, run_id, experiment = loaded.version, loaded.training_run_id, loaded.experiment_id
    return state | {
        "stage": served.followed.alias,
        "sha256": loaded.sha256,
        "registered_at": version.created_at.isoformat(),
        "loaded_at": loaded.loaded_at.isoformat(timespec="milliseconds"),
        "active_since": served.since.isoformat(timespec="milliseconds") if served.since else None,
        "from_cache": served.from_cache,
        "warm_in_staging": served.staging.version.number if served.staging else None,
        "training": {
            "run_id": run_id or None,
            "run_url": links.run_page(run_id) if run_id else None,
            "trace_id": f"{ids.trace_id(run_id):032x}" if run_id else None,
            "trace_url": links.trace_page(run_id, experiment) if run_id else None,
            "mlflow_run_id": version.run_id or None,
            "mlflow_run_url": links.mlflow_run_page(experiment, version.run_id)
            if experiment and version.run_id
            else None,
        },
        "inputs": {column.name: column.type for column in loaded.schema.columns}
        or {"array": loaded.schema.tensor.dtype if loaded.schema.tensor else ""},
        "tags": dict(version.tags),
    }
