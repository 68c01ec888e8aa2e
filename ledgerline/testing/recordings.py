"""Recordings of real runs: each is executed once, and its event log read back as often as a test wants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import EventLogRecord

from ledgerline.ledger.event_log import HistoryReader, run_from
from ledgerline.ledger.history import Run, RunHistory
from ledgerline.ledger.upstreams import Upstreams


@dataclass(frozen=True)
class Recording:
    """A run, and all that its event log holds.

    Attributes:
        run: The run.
        records: All records of its log, in order.
        instance: The instance that holds them.
    """

    run: Run
    records: Sequence[EventLogRecord]
    instance: dg.DagsterInstance | None = None

    @classmethod
    def of(cls, instance: dg.DagsterInstance, run_id: str) -> "Recording":
        """Read the log of a run that has ended.

        Example:
            >>> @dg.asset
            ... def bread() -> int:
            ...     return 12
            >>> with dg.DagsterInstance.ephemeral() as instance:
            ...     run = dg.materialize([bread], instance=instance)
            ...     [attempt.step for attempt in Recording.of(instance, run.run_id).history.attempts]
            ['bread']
        """
        record = instance.get_run_record_by_id(run_id)
        assert record is not None, f"The instance has no run {run_id}."
        return cls(run_from(record), instance.get_records_for_run(run_id).records, instance)

    @property
    def history(self) -> RunHistory:
        """Return the history, read from all records at once."""
        return self.history_of(self.records)

    @property
    def history_with_reads(self) -> RunHistory:
        """Return the history with what its steps read, looked up in the instance."""
        assert self.instance is not None
        return Upstreams(self.instance).found(self.history)

    def history_of(self, records: Sequence[EventLogRecord]) -> RunHistory:
        """Return the history that other records tell, such as some of those that were recorded."""
        reader = HistoryReader(self.run)
        reader.feed(records)
        return reader.history()


class Recordings:
    """Runs by name, each executed when it is first asked for.

    Args:
        instance: Where they are executed.
        runs: Functions that execute a run on an instance and return its id.
    """

    def __init__(
        self, instance: dg.DagsterInstance, runs: Mapping[str, Callable[[dg.DagsterInstance], str]]
    ) -> None:
        self._instance = instance
        self._runs = runs
        self._recordings: dict[str, Recording] = {}

    def __getitem__(self, name: str) -> Recording:
        if name not in self._recordings:
            self._recordings[name] = Recording.of(self._instance, self._runs[name](self._instance))
        return self._recordings[name]
