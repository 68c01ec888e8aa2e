"""A daemon with a real instance and registry, and an address for its alerts."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.testing.loopback_servers import listening
from ledgerline.testing.registry_stock import Stock
from tests.pipelines.ticking import Daemon
from tests.resources.alert_address import AlertAddress


@pytest.fixture
def daemon(instance: dg.DagsterInstance, mlflow_database: str, tmp_path: Path) -> Daemon:
    """Nothing is registered yet."""
    return Daemon(instance, Stock(mlflow_database, tmp_path / "artifacts"))


@pytest.fixture
def address() -> Iterator[AlertAddress]:
    with listening(AlertAddress()) as server:
        yield server
