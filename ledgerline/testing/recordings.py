"""Recordings of real runs: each run is executed once, and tests read its event log as often as they need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import EventLogRecord

from ledgerline.ledger.event_log import HistoryReader, run_from
from ledgerline.ledger.history import Run, RunHistory
from ledgerline.ledger.upstreams import Upstreams


@dataclass(frozen=True)
class Recording:
    """The event log of a run.

    Attributes:
        records: All records of its event log, in order.
        instance: Instance of the run; None if the records were stored elsewhere.

    Example:
        >>> @dg.asset
        ... def bread() -> None: ...
        >>> with dg.DagsterInstance.ephemeral() as instance:
        ...     run_id = dg.materialize([bread], instance=instance).run_id
        ...     recording = Recording.of(instance, run_id)
        >>> [attempt.outcome.value for attempt in recording.history.attempts]
        ['success']
    """

    run: Run
    records: Sequence[EventLogRecord]
    instance: dg.DagsterInstance | None = None

    @classmethod
    def of(cls, instance: dg.DagsterInstance, run_id: str) -> "Recording":
        """Return the recording of a run that has ended."""
        record = instance.get_run_record_by_id(run_id)
        assert record is not None, f"The instance has no run {run_id}."
        return cls(run_from(record), instance.get_records_for_run(run_id).records, instance)

    @property
    def history(self) -> RunHistory:
        """The history, read from all records at once."""
        return self.history_of(self.records)

    @property
    def history_with_reads(self) -> RunHistory:
        """The history with the upstream versions that its steps read, resolved in the instance."""
        assert self.instance is not None
        return Upstreams(self.instance).resolve(self.history)

    def history_of(self, records: Sequence[EventLogRecord]) -> RunHistory:
        """Return the history of other records, such as the first ones of the recording."""
        reader = HistoryReader(self.run)
        reader.feed(records)
        return reader.history()


class Recordings:
    """Recordings by name. Each run is executed at the first access to its recording.

    Args:
        instance: Instance on which the runs are executed.
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
