"""Copies of a run in Dagster's PostgreSQL: rows as Dagster wrote them, with other ids, there all at once."""

from collections.abc import Mapping
from uuid import uuid4

import psycopg
from psycopg import sql

from ledgerline.ledger import ids
from ledgerline.ledger.history import COMPUTE, RunHistory

# Of a second, between the times at which copies seem to have been written last: observers page by these.
APART_SECONDS = 0.01

RUN_COLUMNS = (
    "run_body",
    "snapshot_id",
    "pipeline_name",
    "mode",
    "status",
    "start_time",
    "end_time",
    "create_timestamp",
)
EVENT_COLUMNS = ("event", "dagster_event_type", "timestamp", "step_key", "asset_key", "partition")


def copy_run(database: str, history: RunHistory, copies: int) -> list[str]:
    """Copy a run that has ended.

    Args:
        database: URI of Dagster's database.
        history: Of the run.
        copies: How many.

    Returns:
        The ids of the copies.
    """
    run_id = history.run.run_id
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(_select("runs", RUN_COLUMNS), [run_id])
        (run,) = cursor.fetchall()
        cursor.execute(_select("event_logs", EVENT_COLUMNS), [run_id])
        events = cursor.fetchall()
        made = [str(uuid4()) for _ in range(copies)]
        with cursor.copy(_copy("event_logs", ("run_id", *EVENT_COLUMNS))) as rows:
            for new in made:
                others = _other_ids(history, new)
                for text, *rest in events:
                    rows.write_row((new, _replaced(text, others), *rest))
        for number, new in enumerate(made):
            cursor.execute(
                sql.SQL(
                    "INSERT INTO runs (run_id, {columns}, update_timestamp) "
                    "VALUES ({values}, now() at time zone 'utc' - {ago})"
                ).format(
                    columns=_names(RUN_COLUMNS),
                    values=sql.SQL(", ").join([sql.Placeholder()] * (len(RUN_COLUMNS) + 1)),
                    ago=sql.SQL("make_interval(secs => {})").format(
                        sql.Literal((copies - number) * APART_SECONDS)
                    ),
                ),
                [new, _replaced(run[0], {run_id: new}), *run[1:]],
            )
    return made


def _other_ids(history: RunHistory, new: str) -> Mapping[str, str]:
    """What stands for the run in its own records: its id, and the spans that steps have traced under."""
    run_id = history.run.run_id
    others = {run_id: new}
    for attempt in history.attempts:
        of = attempt.step, attempt.number, COMPUTE
        others[f"{ids.phase_span_id(run_id, *of):016x}"] = f"{ids.phase_span_id(new, *of):016x}"
    return others


def _replaced(text: str, others: Mapping[str, str]) -> str:
    for old, new in others.items():
        text = text.replace(old, new)
    return text


def _names(columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _select(table: str, columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} WHERE run_id = %s ORDER BY id").format(
        _names(columns), sql.Identifier(table)
    )


def _copy(table: str, columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), _names(columns))
