"""Compares the schema of a Dagster database with that of the installed Dagster."""

from collections.abc import Set
from functools import cache

import dagster as dg
from alembic.script import ScriptDirectory

from ledgerline.ledger.dagster_internals import MIGRATIONS

CURSORS = "kvs"  # the table of cursors, which instances have since Dagster 0.14
REVISIONS = "alembic_version"
READ_REVISION = "SELECT version_num FROM alembic_version"


def difference(tables: Set[str], revision: str | None) -> str | None:
    """Describe how the schema of a database of runs differs from Dagster's; None if it is the same.

    A database with a different schema must not be written, because its own Dagster might not be able to read
    the records.

    Args:
        tables: Tables of the database.
        revision: Revision of its schema; None if the database has no revision.
    """
    if CURSORS not in tables:
        return f"was created by an old Dagster and has no table {CURSORS} for cursors"
    if revision != _current_revision():
        schema = f"the schema {revision}" if revision is not None else "no schema revision"
        return (
            f"has {schema}, and Dagster {dg.__version__} needs "
            f"{_current_revision()} (`dagster instance migrate` changes it)"
        )
    return None


@cache
def _current_revision() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
