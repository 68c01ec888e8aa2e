"""Targets for the tests of the observer that refuse what they are given."""

from collections.abc import Callable

from ledgerline.ledger.projection import TargetUnavailableError

BUDGET = 600.0
AWAY = TargetUnavailableError("http://collector.example does not answer")


def refusing(error: Exception, *keys: str) -> Callable[[str], None]:
    """Return a function that raises an error for these runs or backfills, or for all without keys."""

    def refuse(key: str) -> None:
        if not keys or key in keys:
            raise error

    return refuse
