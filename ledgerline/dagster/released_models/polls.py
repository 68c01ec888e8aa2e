"""Defines when a sensor polls the model registry, and which state it keeps. The ticks are in *_sensor.py."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import dagster as dg

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.registry_notifications import notified_at
from ledgerline.registry.history import Entry, History

# Dagster's daemon ticks every 5 seconds. It skips every other tick of a sensor with an interval of 5 seconds,
# because that tick is a moment too early.
TICK_SECONDS = 5
INTERVAL_SECONDS = 3

# The journal is read this often even if no alias has moved: a process that was killed may have left only an
# entry there, and a poll does not read the tags of versions.
READ_SECONDS = 30

NOT_YET = "The model does not exist yet, or was polled a moment ago."
NOTHING_NEW = "Nothing has changed."

# Keys in cursors, by the attribute of the state. Cursors of earlier releases have the same keys.
CURSOR_KEYS = {
    "polled_at": "looked_at",
    "notified_at": "woken",
    "materialised": "shown",
    "alerted": "told",
    "requested": "asked",
    "inconsistencies": "found",
}
_ATTRIBUTES = {key: name for name, key in CURSOR_KEYS.items()}


State = TypeVar("State", bound="Seen")


@dataclass(frozen=True)
class Poll:
    """The result of a poll.

    Attributes:
        aliases: Version by alias.
        journal_entry: Last entry of the journal that was carried out.
        at: Time of the poll, in seconds since the epoch.
        notified_at: Time of the last notification before the poll; None if there was none.
        model_created: Creation time of the model, in milliseconds, which distinguishes it from other models
            of its name.
        newest_model: Creation time of the newest of all models.
    """

    aliases: Mapping[str, int]
    journal_entry: int
    at: float
    notified_at: float | None
    model_created: int
    newest_model: int


@dataclass(frozen=True)
class Seen:
    """The state of a sensor between ticks.

    Attributes:
        polled_at: Time of the last poll, in seconds since the epoch; 0 before the first.
        read_at: Time at which the journal was last read.
        notified_at: Time of the last notification that led to a poll; None if there was none.
        aliases: Version by alias, at the last poll.
        journal_entry: Last entry of the journal that was read.
        has_more: True if some work could not be done yet; the next tick tries it again.
        model_created: Creation time of the model; None in cursors of earlier releases.
        newest_model: Creation time of the newest of all models, at the last poll.
        seal: Seal of the last entry that was read; empty without entries, or if it is unknown.
    """

    polled_at: float = 0
    read_at: float = 0
    notified_at: float | None = None
    aliases: dict[str, int] = field(default_factory=dict)
    journal_entry: int = 0
    has_more: bool = False
    model_created: int | None = None
    newest_model: int = 0
    seal: str = ""

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """Return the state that a cursor contains; without a cursor, the state before the first poll."""
        document: dict[str, Any] = json.loads(cursor) if cursor else {}
        return cls(**{_ATTRIBUTES.get(key, key): value for key, value in document.items()})

    @property
    def cursor(self) -> str:
        """The state as Dagster stores it."""
        return json.dumps(
            {CURSOR_KEYS.get(name, name): value for name, value in asdict(self).items()}, sort_keys=True
        )

    @classmethod
    def nothing_of_a_new_model(cls) -> Self:
        """Return the state for a model that was created since the last poll: everything about it is new."""
        return cls()

    def about(self, current: Poll) -> Self:
        """Return the state for the model that has the name now: this one if it is the same model.

        The journal of a model that was registered anew begins with entry 1 again, so entry numbers of the
        earlier model do not apply to it. An older model that was renamed to this name is treated as at its
        first poll: its earlier moves are not reported.
        """
        # The clock of the registry is used if it is known, since another clock may differ.
        last = self.newest_model or self.polled_at * 1000
        is_new = current.model_created > last
        is_unbound = self.model_created is None and not is_new
        if not self.polled_at or self.model_created == current.model_created or is_unbound:
            return self
        return self.nothing_of_a_new_model() if is_new else type(self)()

    def within(self, history: History) -> Self:
        """Return this state if it belongs to this journal, and otherwise the state before the first poll."""
        is_known = not self.seal or any(entry.seal == self.seal for entry in history.entries)
        return self if is_known and self.journal_entry <= history.head else type(self)()

    def last_poll(self, current: Poll) -> datetime | None:
        """Return the time of the poll before the current one, if it is known."""
        return datetime.fromtimestamp(self.polled_at, UTC) if 0 < self.polled_at <= current.at else None

    def is_due(self, now: float, notified: float | None, poll_seconds: float) -> bool:
        """Return whether to poll: for unfinished work, after a notification, or after `poll_seconds`."""
        waited = now - self.polled_at + TICK_SECONDS / 2
        # It is below 0 if the clock was set back.
        return self.has_more or notified != self.notified_at or not 0 <= waited < poll_seconds

    def is_to_read(self, current: Poll) -> bool:
        """Return whether to read the journal, and not only the aliases."""
        is_same = self.aliases == current.aliases and self.journal_entry == current.journal_entry
        return self.has_more or not is_same or not 0 <= current.at - self.read_at < READ_SECONDS

    def after(self, current: Poll) -> Self:
        """Return the state after a poll."""
        return replace(
            self,
            polled_at=current.at,
            notified_at=current.notified_at,
            aliases=dict(current.aliases),
            model_created=current.model_created,
            newest_model=max(self.newest_model, current.newest_model),
        )

    def after_reading(self, current: Poll, journal_entry: int, *, has_more: bool) -> Self:
        """Return the state after a poll and after the journal was read."""
        return replace(
            self.after(current), read_at=current.at, journal_entry=journal_entry, has_more=has_more
        )


def poll(
    context: dg.SensorEvaluationContext, registry: ModelRegistryResource, model: str, state: type[State]
) -> tuple[State, Poll] | None:
    """Poll the registry in one call.

    Returns:
        State of the sensor for the model that has the name now, and the result of the poll; None if it is not
        due yet, or the model does not exist.

    Raises:
        PermanentFailure: The registry cannot be reached.
    """
    seen = state.from_cursor(context.cursor)
    now, notified = time.time(), notified_at(context.instance)
    if not seen.is_due(now, notified, registry.poll_seconds):
        return None
    alias_states = registry.alias_states()
    if model not in alias_states:
        return None
    alias_state = alias_states[model]
    newest = max(each.created for each in alias_states.values())
    current = Poll(alias_state.aliases, alias_state.journal_entry, now, notified, alias_state.created, newest)
    return seen.about(current), current


def is_in_progress(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run may still write events."""
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def run_key(model: str, entry: Entry) -> str:
    """Return the run key for an entry of the journal.

    The number of the entry is not sufficient: the journal of a model that was registered anew begins with 1
    again, and Dagster starts no run for a known key. The seal contains a hash of all entries up to this one.
    """
    number, _, digest = entry.seal.partition(" ")
    return f"{model}-{number}-{digest[:12]}"
