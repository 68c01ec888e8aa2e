"""The step that compares requests with training rows. Its asset and check are in requests_drift.py."""

from datetime import datetime

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.comparing_predictions import means_of
from ledgerline.dagster.released_models.comparison_tables import as_markdown
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import RequestsDrift
from ledgerline.dagster.released_models.drift_tables import drift_metadata
from ledgerline.dagster.released_models.training_reference import checked_predictions, training_reference
from ledgerline.dagster.released_models.watch import Watch
from ledgerline.dagster.request_log import RequestLogResource, require_logged
from ledgerline.dagster.tracing import OTelResource
from ledgerline.evaluation import drift, plots
from ledgerline.evaluation.stability import psi_by_column
from ledgerline.registry.stages import PRODUCTION
from ledgerline.registry.versions import Version
from ledgerline.requests.logged_rows import inputs_of, outputs_of, redacted_columns
from ledgerline.settings.extras import missing

# The latest rows suffice: by chance alone the index of so many rows is below 0.001.
MAX_ROWS = 200_000


def compare_requests(
    context: dg.AssetExecutionContext,
    model: ReleasedModel,
    watch: Watch,
    since: datetime,
    until: datetime,
) -> RequestsDrift:
    """Compare the requests of a period with the training rows of the version in production.

    Raises:
        PermanentFailure: The requests cannot be compared.
    """
    request_log: RequestLogResource = context.resources.request_log
    otel: OTelResource = context.resources.otel
    version = _in_production(context.resources.registry, model)
    with otel.span("read requests"):
        logged = request_log.read(model.name, since, until, enough=MAX_ROWS + 1)
        answered = _answered_by(logged, version)
    reference = training_reference(context, model, version)
    with otel.span("compare", rows=len(reference.rows) + len(answered)):
        prediction = _responses(model, version, answered)
        before = model.inputs(reference.rows)
        inputs, redacted = inputs_of(answered), redacted_columns(logged)
        not_logged = [str(name) for name in before if f"input.{name}" in redacted or str(name) not in inputs]
        compared = [str(name) for name in before if str(name) not in not_logged]
        now = _typed_as(before, inputs, compared)
        gaps = [name for name in watch.gaps if name in compared]
        result = RequestsDrift(
            version=version.number,
            since=since.isoformat(timespec="seconds"),
            until=until.isoformat(timespec="seconds"),
            requests=len(answered[["at", "request_id"]].drop_duplicates()),
            rows=len(answered),
            is_cut=len(logged) > MAX_ROWS,
            first_training_partition=reference.first_partition,
            last_training_partition=reference.last_partition,
            training_rows=len(reference.rows),
            training_data=reference.as_recorded,
            feature_psi=psi_by_column(before, now, compared),
            gaps_psi=psi_by_column(before.isna(), now.isna(), gaps),
            not_logged=not_logged,
            score_psi=drift.scores_psi(model.kind, reference.prediction, prediction),
            mean_training_score=means_of(model, reference.prediction),
            mean_score=means_of(model, prediction),
        )
    context.add_asset_metadata({**drift_metadata(result), "not_logged": ", ".join(not_logged) or "none"})
    if not missing("plots"):
        samples = {"rows it was trained on": reference.prediction, "requests": prediction}
        context.add_asset_metadata({"scores_plot": as_markdown(plots.scores(model.kind, samples))})
    return result


def _in_production(registry: ModelRegistryResource, model: ReleasedModel) -> Version:
    version = registry.model(model.name).version_with_alias(PRODUCTION)
    if version is None:
        raise PermanentFailure(
            f"No version of {model.name} carries the alias {PRODUCTION}.",
            f"Promote one with the job {model.names.release_job}, and send requests to `ledgerline serve`.",
        )
    return version


def _answered_by(logged: pd.DataFrame, version: Version) -> pd.DataFrame:
    """Return the rows that a version predicted.

    Raises:
        PermanentFailure: The version answered no request, or its responses are redacted in the log.
    """
    require_logged(logged, [])
    rows = logged[logged["version"] == version.number].reset_index(drop=True)
    if rows.empty:
        raise PermanentFailure(
            f"No request since then was answered by version {version.number} of {version.name}, which is in "
            "production.",
            "Send it requests, or name an earlier time with since_hours.",
        )
    return rows


def _responses(model: ReleasedModel, version: Version, rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return the predictions in the responses: an array without a name, or a column for each of its names."""
    outputs = outputs_of(rows)
    if not outputs:
        raise PermanentFailure(
            f"The log holds no prediction of version {version.number} of {version.name}.",
            "Compare requests that have predictions as responses.",
        )
    try:
        answer = next(iter(outputs.values())) if len(outputs) == 1 else pd.DataFrame(outputs)
    except ValueError as error:
        raise PermanentFailure(
            f"The responses of version {version.number} of {version.name} are several arrays "
            f"({', '.join(outputs)}), of which some have several columns.",
            f"{model.name} is declared to predict {model.kind!r}; serve a version that does.",
        ) from error
    return checked_predictions(model, f"the response of version {version.number}", answer, len(rows))


def _typed_as(before: pd.DataFrame, inputs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return columns of requests with the types of the table: a client may send 5 for a float column."""
    now = inputs[columns].copy()
    for name in columns:
        if is_numeric_dtype(before[name]) and not is_numeric_dtype(now[name]):
            now[name] = pd.to_numeric(now[name], errors="coerce")
    return now
