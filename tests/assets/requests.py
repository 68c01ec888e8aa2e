"""Logs requests for tests with the logger of the service."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from assets.delay_model import MODEL_NAME, model_input
from ledgerline.dagster.resources import registry_of
from ledgerline.dagster.settings import Settings
from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.serving.request_logging import AnsweredRequest, RequestLogger
from ledgerline.serving.rows import Rows, output_rows

PLENTY = 10**9


def hours_ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def model_of(settings: Settings, version: int) -> StoredModel:
    model = registry_of(settings).model(MODEL_NAME)
    return model.load(model.version(version))


def ask(
    settings: Settings,
    requests: Sequence[pd.DataFrame],
    *,
    version: int,
    since: datetime,
    redacted: Sequence[str] = (),
) -> None:
    """Let a version answer requests about flights, a second after each other, and log them."""
    assert settings.request_log is not None
    model = model_of(settings, version)
    logger = RequestLogger(Path(settings.request_log), frozenset(redacted), PLENTY)
    logger.start()
    for number, flights in enumerate(requests):
        inputs = model_input(flights)
        rows = Rows({str(name): inputs[name].to_numpy() for name in inputs}, len(inputs))
        logger.log(
            AnsweredRequest(
                at=since.timestamp() + number,
                request_id=f"request {number}",
                model=MODEL_NAME,
                version=version,
                trace_id=f"{number:032x}",
                seconds=0.01,
                inputs=rows,
                outputs=output_rows(model.answer(inputs), len(inputs)),
            )
        )
    logger.stop()


def in_requests(flights: pd.DataFrame, size: int) -> list[pd.DataFrame]:
    return [flights.iloc[start : start + size] for start in range(0, len(flights), size)]
