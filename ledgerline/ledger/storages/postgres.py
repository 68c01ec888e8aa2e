"""Dagster's storages in PostgreSQL: whether they can be reached, and written, and by which driver.

Import it only where dagster-postgres is installed: the extra `postgres`.
"""

import importlib.util
from collections.abc import Callable
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ledgerline.ledger.storages.config import InstanceError, StorageConfig
from ledgerline.ledger.storages.schema import CURSORS, READ_REVISION, REVISIONS, difference
from ledgerline.settings.extras import remedy

# dagster-postgres is written for psycopg 2: with psycopg 3 its NOTIFY fails, and so no event can be written.
DRIVERS = {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg"}
POSTGRESQL = ("postgres", "postgresql", *DRIVERS.values())
CONNECT_SECONDS = 10
READ_ONLY = "-c default_transaction_read_only=on"
WRITTEN = {"runs": CURSORS, "event_logs": "event_logs"}  # the table that an observer writes to, by storage


class PostgresInstanceStorage:
    """A storage of an instance, in a PostgreSQL database.

    Args:
        config: The storage as it is configured.
        table: The table that it has in every instance.

    Raises:
        InstanceError: Its address cannot be used.
    """

    def __init__(self, config: StorageConfig, table: str) -> None:
        self._config = config
        self._table = table
        try:
            self._url = sa.make_url(pg_url_from_config(config.value))
        except (SQLAlchemyError, ValueError) as error:
            raise InstanceError(
                f"{config.setting} has an address that is not one of a database, like "
                "postgresql://user:password@host:5432/database."
            ) from error
        except Exception as error:  # Dagster's own, which have no class in common
            raise InstanceError(f"{config.setting} needs either postgres_url or postgres_db.") from error
        if self._url.drivername in POSTGRESQL:
            self._url = self._url.set(drivername=_driver())

    @property
    def identity(self) -> str:
        """The address of the database, without user and password."""
        return f"{self._url.host}:{self._url.port or 5432}/{self._url.database}"

    def why_only_read(self) -> str | None:
        """Return why it cannot be written; None if it can.

        Raises:
            InstanceError: It cannot be reached, or has no tables of Dagster.
        """
        with closing(self._connected()) as connection:
            tables = set(sa.inspect(connection).get_table_names())
            if self._table not in tables:
                raise InstanceError(
                    f"The database {self.identity} ({self._config.setting}) has no table {self._table}: "
                    "it is another database than Dagster's, or Dagster has not been started with it yet."
                )
            revision = connection.scalar(sa.text(READ_REVISION)) if REVISIONS in tables else None
            different = difference(tables, revision) if self._table == "runs" else None
            if different is not None:
                return f"{self.identity} {different}"
            if connection.scalar(sa.text("SHOW transaction_read_only")) == "on":
                return f"{self.identity} takes no writes, like a replica"
            written = WRITTEN[self._table]
            may = sa.text("SELECT has_table_privilege(:table, 'INSERT')")
            if not connection.scalar(may, {"table": written}):
                return f"{self._url.username} may not write to {written} in {self.identity}"
        return None

    def opened(self) -> Any:
        """Open it; tables that it lacks are not made."""
        return self._opened(self._url)

    def opened_to_read(self) -> Any:
        """Open it so that the server refuses to write."""
        options = self._url.query.get("options", "")
        given = " ".join(options) if isinstance(options, tuple) else options
        return self._opened(self._url.update_query_dict({"options": f"{given} {READ_ONLY}".strip()}))

    def made(self) -> Any:
        """Open it; tables that it lacks are made, unless the configuration says otherwise.

        Raises:
            InstanceError: It cannot be reached.
        """
        self._connected().close()
        return self._storage(self._url, self._config.value.get("should_autocreate_tables", True))

    def _opened(self, url: sa.URL) -> Any:
        return self._storage(url, should_autocreate_tables=False)

    def _storage(self, url: sa.URL, should_autocreate_tables: bool) -> Any:
        return self._config.storage(
            postgres_url=url.render_as_string(hide_password=False),
            should_autocreate_tables=should_autocreate_tables,
            token_provider=get_token_provider_from_config(self._config.value),
        )

    def _connected(self) -> sa.Connection:
        return self._explained(
            lambda: create_pg_engine(
                self._url.render_as_string(hide_password=False),
                get_token_provider_from_config(self._config.value),
                poolclass=NullPool,
                connect_args={"connect_timeout": CONNECT_SECONDS},
            ).connect()
        )

    def _explained(self, connect: Callable[[], sa.Connection]) -> sa.Connection:
        try:
            return connect()
        except Exception as error:  # drivers, token providers and SQLAlchemy have no class in common
            cause = getattr(error, "orig", None) or error
            said = " ".join(str(cause).split())
            if self._url.password:
                said = said.replace(self._url.password, "***")
            raise InstanceError(
                f"The database {self.identity} ({self._config.setting}) cannot be reached: {said}"
            ) from error


def _driver() -> str:
    """Return the driver that is installed; psycopg 2, if both are."""
    for module, name in DRIVERS.items():
        if importlib.util.find_spec(module) is not None:
            return name
    raise InstanceError(f"There is no driver for PostgreSQL here, psycopg2 or psycopg. {remedy('postgres')}")
