"""Opens Dagster's storages in PostgreSQL, and checks that they can be reached and written.

This module can be imported only with the extra `postgres`, which installs dagster-postgres.
"""

import importlib.util
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ledgerline.ledger.storages.config import InstanceError, StorageConfig
from ledgerline.ledger.storages.schema import CURSORS, READ_REVISION, REVISIONS, difference
from ledgerline.settings.extras import remedy

# dagster-postgres is written for psycopg 2. With psycopg 3 its NOTIFY fails, so that no event can be written.
DRIVERS = {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg"}
POSTGRESQL = ("postgres", "postgresql", *DRIVERS.values())
CONNECT_SECONDS = 10
READ_ONLY = "-c default_transaction_read_only=on"
WRITTEN = {"runs": CURSORS, "event_logs": "event_logs"}  # the table that an observer writes to, by storage


class PostgresInstanceStorage:
    """A storage of an instance, in a PostgreSQL database.

    Args:
        config: Configuration of the storage.
        table: A table that exists in every instance.

    Raises:
        InstanceError: The address is not valid.
    """

    def __init__(self, config: StorageConfig, table: str) -> None:
        self._config = config
        self._table = table
        try:
            self._url = sa.make_url(pg_url_from_config(config.value))
        except (SQLAlchemyError, ValueError) as error:
            raise InstanceError(
                f"{config.setting} has an address that is not the address of a database.",
                "Use an address like postgresql://user:password@host:5432/database.",
            ) from error
        except Exception as error:  # Dagster's errors have no common class
            raise InstanceError(
                f"{config.setting} has no address.", "Set either postgres_url or postgres_db."
            ) from error
        if self._url.drivername in POSTGRESQL:
            self._url = self._url.set(drivername=_driver())

    @property
    def identity(self) -> str:
        """The address of the database, without user and password."""
        return f"{self._url.host}:{self._url.port or 5432}/{self._url.database}"

    def why_only_read(self) -> str | None:
        """Return the reason why it is only read; None if it can be written.

        Raises:
            InstanceError: The database cannot be reached, or has no tables of Dagster.
        """
        with closing(self._connected()) as connection:
            tables = set(sa.inspect(connection).get_table_names())
            if self._table not in tables:
                raise InstanceError(
                    f"The database {self.identity} ({self._config.setting}) has no table {self._table}: "
                    "it is not a database of Dagster, or Dagster has not been started with it yet."
                )
            revision = connection.scalar(sa.text(READ_REVISION)) if REVISIONS in tables else None
            different = difference(tables, revision) if self._table == "runs" else None
            if different is not None:
                return f"{self.identity} {different}"
            if connection.scalar(sa.text("SHOW transaction_read_only")) == "on":
                return f"{self.identity} accepts no writes, as a replica does"
            written = WRITTEN[self._table]
            may = sa.text("SELECT has_table_privilege(:table, 'INSERT')")
            if not connection.scalar(may, {"table": written}):
                return f"{self._url.username} may not write to {written} in {self.identity}"
        return None

    def opened(self) -> Any:
        """Open it without creating missing tables."""
        return self._storage(self._url, should_autocreate_tables=False)

    def opened_to_read(self) -> Any:
        """Open it so that the server rejects writes."""
        options = self._url.query.get("options", "")
        given = " ".join(options) if isinstance(options, tuple) else options
        url = self._url.update_query_dict({"options": f"{given} {READ_ONLY}".strip()})
        return self._storage(url, should_autocreate_tables=False)

    def made(self) -> Any:
        """Open it and create missing tables, unless the configuration forbids that.

        Raises:
            InstanceError: The database cannot be reached.
        """
        self._connected().close()
        return self._storage(self._url, self._config.value.get("should_autocreate_tables", True))

    def _storage(self, url: sa.URL, should_autocreate_tables: bool) -> Any:
        return self._config.storage(
            postgres_url=url.render_as_string(hide_password=False),
            should_autocreate_tables=should_autocreate_tables,
            token_provider=get_token_provider_from_config(self._config.value),
        )

    def _connected(self) -> sa.Connection:
        try:
            return create_pg_engine(
                self._url.render_as_string(hide_password=False),
                get_token_provider_from_config(self._config.value),
                poolclass=NullPool,
                connect_args={"connect_timeout": CONNECT_SECONDS},
            ).connect()
        except Exception as error:  # drivers, token providers and SQLAlchemy have no common error class
            cause = getattr(error, "orig", None) or error
            problem = " ".join(str(cause).split())
            if self._url.password:
                problem = problem.replace(self._url.password, "***")
            raise InstanceError(
                f"The database {self.identity} ({self._config.setting}) cannot be reached: {problem}"
            ) from error


def _driver() -> str:
    """Return the driver that is installed, or psycopg 2 if both are."""
    for module, name in DRIVERS.items():
        if importlib.util.find_spec(module) is not None:
            return name
    raise InstanceError("No driver for PostgreSQL is installed (psycopg2 or psycopg).", remedy("postgres"))
