"""Fixtures of tests with MLflow."""

import pytest

from ledgerline.dagster.tracking import MLflowResource


@pytest.fixture
def mlflow(tracking_uri: str, artifacts: str | None, request: pytest.FixtureRequest) -> MLflowResource:
    """MLflow with an experiment of the test's name."""
    return MLflowResource(tracking_uri=tracking_uri, experiment=request.node.name, artifacts=artifacts)
