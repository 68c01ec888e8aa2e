"""Resolves the versions of upstream assets that steps read. reads.py defines the records.

Dagster tags a materialisation with a version of each upstream asset and with the number of its latest event.
Queries that end at this number return the state that the step could read, even if the asset was written
again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter, DagsterEventType, EventLogRecord, EventRecordsFilter, RunsFilter

from ledgerline.cleaning.texts import cleaned
from ledgerline.ledger import mapped_partitions
from ledgerline.ledger.history import Attempt, Materialisation, RunHistory, asset_name
from ledgerline.ledger.mapped_partitions import DIGEST_LIMIT
from ledgerline.ledger.materialised import (
    DATA_VERSION_TAGS,
    MaterialisationReader,
    data_version,
    tagged_version,
)
from ledgerline.ledger.reads import Basis, Read, Source
from ledgerline.ledger.written import partition_rows

# Dagster's DEFAULT_DATA_VERSION, for an upstream asset without a known version.
NO_VERSION = "INITIAL"

RANGE_TAG = "dagster/asset_partition_range_start"

AT_ONCE = 500  # maximum number of storage ids, partitions or run ids in one query
MAX_SOURCES = 2000  # maximum number of partitions of one read
MAX_PAGES = 20  # of events for one read; then each partition is queried

# The partitions of an asset that a run wrote before an attempt, with their rows.
_Written = Mapping[str, tuple[Materialisation, int | None]]

EVENT_TYPES = (DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION)


@dataclass
class Upstreams:
    """Resolves the reads of the steps of one run, and caches the results."""

    instance: dg.DagsterInstance
    _events: dict[int, EventLogRecord | None] = field(default_factory=dict)
    _versions: dict[tuple[dg.AssetKey, int], Mapping[str, str]] = field(default_factory=dict)
    _ranges: dict[str, bool] = field(default_factory=dict)  # by run id: whether it wrote a range
    _resolved: dict[tuple[str, int], tuple[Attempt, Attempt]] = field(default_factory=dict)
    _reader: MaterialisationReader = field(default_factory=MaterialisationReader)

    def resolve(self, history: RunHistory) -> RunHistory:
        """Return the history with the resolved reads of the attempts that have ended."""
        new = [
            attempt
            for attempt in history.attempts
            if attempt.ended is not None and self._known(attempt) is attempt and attempt.reads
        ]
        if new:
            self._fetch_events(new)
            for attempt in new:
                resolved = self._resolve_attempt(history, attempt)
                self._resolved[attempt.step, attempt.number] = attempt, resolved
        if not self._resolved:
            return history
        return replace(history, attempts=tuple(self._known(attempt) for attempt in history.attempts))

    def _known(self, attempt: Attempt) -> Attempt:
        before, resolved = self._resolved.get((attempt.step, attempt.number), (None, attempt))
        return resolved if before is attempt else attempt

    def _resolve_attempt(self, history: RunHistory, attempt: Attempt) -> Attempt:
        # Hundreds of partitions that one step writes share their reads.
        recorded = {(each.asset, id(each.reads)): each.reads for each in attempt.materialisations}
        resolved_reads: dict[str, list[Read]] = {}
        for asset, read in dict.fromkeys(
            (asset, read) for (asset, _), reads in recorded.items() for read in reads
        ):
            resolved_reads.setdefault(asset, []).append(self._resolve_read(history, attempt, asset, read))
        return replace(attempt, resolved_reads=resolved_reads)

    def _resolve_read(self, history: RunHistory, attempt: Attempt, asset: str, read: Read) -> Read:
        if read.pointer is None:
            if read.recorded == NO_VERSION:
                return _known(read, [], Basis.NAMED)
            reason = f"Dagster recorded the version {read.recorded} without its event"
            return replace(read, reason=reason)
        event = self._events[read.pointer]
        if event is None:
            return replace(read, reason=f"the asset's event {read.pointer} is no longer in Dagster")
        # The name of the tag does not distinguish a slash within a part of the key from one between parts.
        read = replace(read, asset=asset_name(_key(event)))
        if event.run_id == history.run.run_id and event.event_log_entry.step_key == attempt.step:
            own = [
                _source(part, part.rows, event.run_id, event.storage_id)
                for part in attempt.written.get(read.asset, ())
            ]
            return _known(read, own, Basis.NAMED)
        version = data_version(event.event_log_entry.tags or {}) or NO_VERSION
        if event.partition_key is None and version == read.recorded:
            return _known(read, self._sources([event]), Basis.NAMED)
        written = {part.partition for part in attempt.written[asset] if part.partition is not None}
        same_run = _written_before(history, attempt, read.asset) if event.run_id == history.run.run_id else {}
        return self._resolve_partitions(read, event, written, same_run)

    def _resolve_partitions(
        self, read: Read, event: EventLogRecord, written: set[str], same_run: _Written
    ) -> Read:
        key, pointer = _key(event), event.storage_id
        if read.recorded == mapped_partitions.NOTHING_READ:
            return _known(read, [], Basis.DIGEST)
        same = self._resolve_same_names(read, event, written, same_run)
        if same is not None:
            return same
        latest_version = data_version(event.event_log_entry.tags or {}) or NO_VERSION
        versions = self._versions_of(key, pointer)
        if read.recorded == latest_version:
            partitions, basis = _by_default(versions, written), Basis.MAPPING
        else:
            partitions, basis = mapped_partitions.fitting(read.recorded, versions, written), Basis.DIGEST
        if partitions is None:
            reason = (
                f"Dagster recorded {read.recorded}, but not which of {len(versions)} partitions were read"
            )
            return replace(read, reason=reason)
        if len(partitions) > MAX_SOURCES:
            reason = f"{len(partitions)} partitions were read, and at most {MAX_SOURCES} are resolved"
            return replace(read, reason=reason)
        own = [
            name
            for name in partitions
            if name in same_run and same_run[name][0].data_version == versions[name]
        ]
        others = self._latest(key, pointer, set(partitions).difference(own))
        sources = [*_sources_of(event, own, same_run), *self._sources(others.values())]
        return _known(read, sorted(sources, key=lambda source: source.partition or ""), basis)

    def _resolve_same_names(
        self, read: Read, event: EventLogRecord, written: set[str], same_run: _Written
    ) -> Read | None:
        """Resolve a mapping between equal keys, the most frequent one; None if the digest does not match."""
        own = {name: part.data_version or "" for name, (part, _) in same_run.items() if name in written}
        if len(written) >= DIGEST_LIMIT:
            latest_version = data_version(event.event_log_entry.tags or {})
            if read.recorded == latest_version and len(own) == len(written):
                return _known(read, _sources_of(event, own, same_run), Basis.MAPPING)
            return None
        if own and mapped_partitions.digest(own) == read.recorded:
            return _known(read, _sources_of(event, own, same_run), Basis.DIGEST)
        records = self._latest(_key(event), event.storage_id, written)
        tags = {name: record.event_log_entry.tags or {} for name, record in records.items()}
        versions = {name: tagged_version(of_one) for name, of_one in tags.items()}
        same = {name: version for name, version in versions.items() if version is not None}
        if same and mapped_partitions.digest(same) == read.recorded:
            return _known(read, self._sources(records[name] for name in same), Basis.DIGEST)
        return None

    # Queries; all of them end at the number of the latest event

    def _fetch_events(self, attempts: Iterable[Attempt]) -> None:
        reads = (read for attempt in attempts for read in attempt.reads)
        wanted = {read.pointer for read in reads if read.pointer is not None} - self._events.keys()
        for event_type in EVENT_TYPES:
            for ids in _portions(sorted(wanted)):
                records = self.instance.event_log_storage.get_event_records(
                    EventRecordsFilter(event_type, storage_ids=ids)
                )
                self._events.update((record.storage_id, record) for record in records)
            wanted -= self._events.keys()
        self._events.update(dict.fromkeys(wanted))

    def _versions_of(self, key: dg.AssetKey, pointer: int) -> Mapping[str, str]:
        if (key, pointer) not in self._versions:
            tags = self.instance.event_log_storage.get_latest_tags_by_partition(
                key,
                DagsterEventType.ASSET_MATERIALIZATION,
                [DATA_VERSION_TAGS[0]],
                before_cursor=pointer + 1,
            )
            self._versions[key, pointer] = {name: each[DATA_VERSION_TAGS[0]] for name, each in tags.items()}
        return self._versions[key, pointer]

    def _latest(
        self, key: dg.AssetKey, pointer: int, partitions: Collection[str]
    ) -> dict[str, EventLogRecord]:
        """Return the latest materialisation of each of these partitions."""
        latest: dict[str, EventLogRecord] = {}
        for portion in _portions(sorted(partitions)):
            missing, before = set(portion), pointer + 1
            for _ in range(MAX_PAGES):
                records = self._page(key, sorted(missing), before, limit=len(missing))
                for record in records:
                    latest.setdefault(record.partition_key or "", record)
                full = len(records) == len(missing)
                missing -= latest.keys()
                if not full or not missing:
                    break
                before = records[-1].storage_id
            else:
                for partition in sorted(missing):
                    for record in self._page(key, [partition], pointer + 1, limit=1):
                        latest[partition] = record
        return latest

    def _page(
        self, key: dg.AssetKey, partitions: Sequence[str], before: int, limit: int
    ) -> Sequence[EventLogRecord]:
        wanted = AssetRecordsFilter(key, asset_partitions=partitions, before_storage_id=before)
        return self.instance.event_log_storage.fetch_materializations(wanted, limit=limit).records

    def _sources(self, records: Iterable[EventLogRecord]) -> list[Source]:
        records_in_order = sorted(records, key=lambda record: record.partition_key or "")
        self._fetch_ranges(records_in_order)
        return [self._source(record) for record in records_in_order]

    def _source(self, record: EventLogRecord) -> Source:
        materialization = record.asset_materialization
        if materialization is None:  # The asset was observed, not materialised.
            version = data_version(record.event_log_entry.tags or {})
            return Source(cleaned(record.partition_key), version, record.run_id, record.storage_id)
        written = self._reader.read(materialization, record.timestamp)
        rows = written.rows
        if rows is None and written.output_rows is not None and not self._ranges[record.run_id]:
            rows = written.output_rows
        return _source(written, rows, record.run_id, record.storage_id)

    def _fetch_ranges(self, records: Iterable[EventLogRecord]) -> None:
        """Fetch which runs wrote a range, because a row count then covers all partitions of the range."""
        wanted = {record.run_id for record in records if record.partition_key is not None}
        for ids in _portions(sorted(wanted - self._ranges.keys())):
            for run in self.instance.get_runs(RunsFilter(run_ids=list(ids))):
                self._ranges[run.run_id] = RANGE_TAG in run.tags
        # The tags of a deleted run are unknown; it is treated as a run of a range.
        self._ranges |= dict.fromkeys(wanted - self._ranges.keys(), True)


def _by_default(versions: Mapping[str, str], written: Collection[str]) -> Sequence[str] | None:
    """Return the partitions of Dagster's default mapping; None if Dagster would have recorded a digest."""
    if not written:
        return sorted(versions)
    same = sorted(versions.keys() & written)
    if len(written) >= DIGEST_LIMIT and same:
        return same
    others = mapped_partitions.related(versions, written)
    return sorted(others) if len(others) >= DIGEST_LIMIT else None


def _written_before(history: RunHistory, attempt: Attempt, asset: str) -> _Written:
    return {
        part.partition: (part, rows)
        for each in history.ended_in_order
        if each.ended is not None and each.ended <= attempt.started
        for parts in [each.written.get(asset, ())]
        for part, rows in zip(parts, partition_rows(parts), strict=True)
        if part.partition is not None
    }


def _sources_of(event: EventLogRecord, partitions: Iterable[str], same_run: _Written) -> list[Source]:
    """Return the sources for partitions that the run itself wrote, without a query."""
    chosen = (same_run[name] for name in sorted(partitions))
    return [_source(part, rows, event.run_id, event.storage_id) for part, rows in chosen]


def _source(written: Materialisation, rows: int | None, run_id: str, storage_id: int) -> Source:
    return Source(
        partition=written.partition,
        data_version=written.data_version,
        run_id=run_id,
        storage_id=storage_id,
        rows=rows,
        content_sha256=written.content_sha256,
        schema=written.schema,
        is_of_code=written.is_of_code,
    )


def _known(read: Read, sources: Iterable[Source], basis: Basis) -> Read:
    return replace(read, sources=tuple(sources), basis=basis, reason="")


def _key(event: EventLogRecord) -> dg.AssetKey:
    key = event.asset_key
    if key is None:
        raise ValueError(
            f"Event {event.storage_id} of Dagster's event log has the type of an asset event and no asset "
            "key."
        )
    return key


def _portions(wanted: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE))
