"""The errors that a reader can do something about, as one tree.

The classes are declared in the modules that raise them. Faults of the library itself, and errors of other
libraries, are not in the tree. Three places turn an error into something else: `ledgerline.dagster.failures`
into a failure of Dagster, the command line into one message with exit status 2, and serving into a response.
docs/api/errors.md shows the tree.
"""

from typing import ClassVar


class LedgerlineError(Exception):
    """Base class of the errors that a reader can do something about.

    Attributes:
        problem: What is wrong, as a whole sentence that names the thing.
        remedy: What to do about it, as a whole sentence; empty if the problem says it.
        is_transient: True for a class of errors that may pass without a change; a retry may succeed.

    Example:
        >>> error = LedgerlineError("Port 3000 is in use.", "Set LEDGERLINE_DAGSTER_PORT to a free one.")
        >>> str(error)
        'Port 3000 is in use. Set LEDGERLINE_DAGSTER_PORT to a free one.'
    """

    is_transient: ClassVar[bool] = False

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the problem and the remedy as one message."""
        return f"{self.problem} {self.remedy}".rstrip()
