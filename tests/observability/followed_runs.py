"""Targets that refuse runs, and the runs in a cursor, for tests of the observer."""

from collections.abc import Callable

import dagster as dg

from ledgerline.ledger.cursors import Cursors
from ledgerline.ledger.projection import TargetUnavailableError
from ledgerline.testing.written_runs import FakeTarget

BUDGET = 600.0
HOUR = 3600.0
AWAY = TargetUnavailableError("http://collector.example does not answer")


def refusing(error: Exception, *keys: str) -> Callable[[str], None]:
    """Return a function that raises an error for these runs or backfills, or for all without keys."""

    def refuse(key: str) -> None:
        if not keys or key in keys:
            raise error

    return refuse


def followed(instance: dg.DagsterInstance, target: FakeTarget) -> list[str]:
    """Return the ids of the runs that the next tick reads again."""
    cursors = Cursors.load(instance.run_storage, target.name)
    assert cursors is not None
    return list(cursors.active)
