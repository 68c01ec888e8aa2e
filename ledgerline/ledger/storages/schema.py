"""The schema of Dagster's storages: whether a database has that of the Dagster which is installed here."""

from collections.abc import Set
from functools import cache

import dagster as dg
from alembic.script import ScriptDirectory

from ledgerline.ledger.dagster_internals import MIGRATIONS

CURSORS = "kvs"  # the table of cursors, which instances have since Dagster 0.14
REVISIONS = "alembic_version"
READ_REVISION = "SELECT version_num FROM alembic_version"


def difference(tables: Set[str], revision: str | None) -> str | None:
    """Return what is different in a database of runs, so that it is not to be written; None if nothing is.

    What this Dagster writes, one of another schema may not be able to read.

    Args:
        tables: Those it has.
        revision: Of its schema; None if it does not say.
    """
    if CURSORS not in tables:
        return f"is of an old Dagster and has no table {CURSORS} for cursors"
    if revision != _current_revision():
        return (
            f"has the schema {revision or 'of no revision'}, and Dagster {dg.__version__} has "
            f"{_current_revision()} (`dagster instance migrate` changes it)"
        )
    return None


@cache
def _current_revision() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
