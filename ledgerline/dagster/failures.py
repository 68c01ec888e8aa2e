"""Defines the failure that Dagster does not retry, and turns errors of the library into it.

Transient errors stay ordinary exceptions, to which a retry policy applies.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.errors import LedgerlineError


class PermanentFailure(dg.Failure, LedgerlineError):  # noqa: N818 (Dagster calls it a failure)
    """A failure that is not retried, because input, configuration or environment must be changed first.

    Dagster shows the problem and the remedy as the description of the failure, and each as its metadata.

    Args:
        problem: Problem, as a whole sentence that names the object concerned.
        remedy: Remedy, as a whole sentence; empty if the problem implies it.

    Example:
        >>> raise PermanentFailure("The table sales is not stored.", "Materialise it first.")
        Traceback (most recent call last):
        ...
        ledgerline.dagster.failures.PermanentFailure: The table sales is not stored. Materialise it first.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        metadata = {name: text for name, text in (("problem", problem), ("remedy", remedy)) if text}
        super().__init__(f"{problem} {remedy}".rstrip(), metadata, allow_retries=False)
        self.problem, self.remedy = problem, remedy  # __init__ stored both texts as the problem


@contextmanager
def permanent_failures(*passing: type[LedgerlineError]) -> Iterator[None]:
    """Turn permanent errors of the library into `PermanentFailure`, with secrets redacted.

    Transient errors (`LedgerlineError.is_transient`) and exceptions of other libraries pass unchanged. Use it
    as a context manager or as a decorator.

    Args:
        passing: Errors that pass unchanged, too, because the caller handles them.

    Example:
        >>> with permanent_failures():
        ...     raise LedgerlineError("There is no version 7.", "Choose one that exists.")
        Traceback (most recent call last):
        ...
        ledgerline.dagster.failures.PermanentFailure: There is no version 7. Choose one that exists.
    """
    try:
        yield
    except LedgerlineError as error:
        if error.is_transient or isinstance(error, (dg.Failure, *passing)):
            raise
        raise PermanentFailure(clean(error.problem), clean(error.remedy)) from error


def listed(names: Sequence[str]) -> str:
    """Return names as a text for a message: the first five, and the number of the others."""
    first = ", ".join(names[:5])
    return first if len(names) <= 5 else f"{first} and {len(names) - 5} more"
