"""Shows errors of the registry that a person can mend, without a stack trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ledgerline.cli.commands import stop
from ledgerline.errors import LedgerlineError


@contextmanager
def clear_errors() -> Iterator[None]:
    """End the command with a message where a person can do something."""
    from ledgerline.cli.observing import ObservingError
    from ledgerline.cli.partition_keys import PartitionError
    from ledgerline.cli.released import ReleasedModelError
    from ledgerline.cli.webhooks import WebhookError
    from ledgerline.ledger.storages.config import InstanceError

    try:
        yield
    except (
        LedgerlineError,
        InstanceError,
        ObservingError,
        ReleasedModelError,
        PartitionError,
        WebhookError,
    ) as error:
        stop(error)


def moment_of(text: str) -> datetime:
    """Return a point in time, as `observing.moment` takes it."""
    from ledgerline.cli.observing import moment

    return moment(text)
