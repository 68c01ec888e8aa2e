"""When a sensor looks at the model registry, and what it remembers. What it does: the modules *_sensor.py."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

import dagster as dg

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.registry_notifications import notified_at
from ledgerline.registry.history import Entry, History

# Dagster's daemon comes by every 5 seconds. Sensors that ask for just that are passed over every other time,
# for being a moment too early.
TICK_SECONDS = 5
INTERVAL_SECONDS = 3

# The journal is read this often even where nothing seems to have moved: a process that was killed may have
# left an entry there, and nothing else; and tags of versions do not show in a look.
READ_SECONDS = 30

NOT_YET = "There is no model yet, or it was looked at a moment ago."
NOTHING_NEW = "Nothing has changed."


@dataclass(frozen=True)
class Poll:
    """What a sensor found when it looked.

    Attributes:
        aliases: Version by alias.
        journal_entry: The last entry of the journal that was carried out.
        at: When it looked, in seconds since 1970.
        woken: The last wake-up by then.
        model_created: When the model was created, in milliseconds: this tells it from others of its name.
        newest_model: When the latest of all models was created.
    """

    aliases: Mapping[str, int]
    journal_entry: int
    at: float
    woken: float | None
    model_created: int
    newest_model: int


@dataclass(frozen=True)
class Seen:
    """What a sensor remembers between ticks.

    Attributes:
        looked_at: When it last looked, in seconds since 1970; 0: never.
        read_at: When it last read the journal.
        woken: The wake-up it has followed.
        aliases: Version by alias, at the last look.
        journal_entry: Up to where the journal was read.
        has_more: Whether something could not be done yet: it is tried at the next tick.
        model_created: When the model that this is about was created; None: in cursors of earlier releases.
        newest_model: When the latest of all models was created, at the last look.
        seal: The seal of the last entry that was read; empty: there was none, or it is not known.
    """

    looked_at: float = 0
    read_at: float = 0
    woken: float | None = None
    aliases: dict[str, int] = field(default_factory=dict)
    journal_entry: int = 0
    has_more: bool = False
    model_created: int | None = None
    newest_model: int = 0
    seal: str = ""

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """What a cursor says; without one, nothing was seen."""
        return cls(**json.loads(cursor)) if cursor else cls()

    @property
    def cursor(self) -> str:
        """To be kept by Dagster."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def nothing_of_a_new_model(cls) -> Self:
        """Return what is known of a model that was created since the last look: all that it does is new."""
        return cls()

    def about(self, found: Poll) -> Self:
        """Return what was seen of the model that has the name now.

        A model that was made anew begins its journal with entry 1 again, so numbers of entries that were seen
        of the earlier one say nothing of it. A model that was there already, and was given the name, has a
        past that is not reported: to it this is the first look.
        """
        # The clock of the registry where it is known, since another one may differ.
        last = self.newest_model or self.looked_at * 1000
        is_new = found.model_created > last
        is_unbound = self.model_created is None and not is_new
        if not self.looked_at or self.model_created == found.model_created or is_unbound:
            return self
        return self.nothing_of_a_new_model() if is_new else type(self)()

    def within(self, history: History) -> Self:
        """Return the same if it was seen in this journal; if in another one, nothing was seen."""
        is_known = not self.seal or any(entry.seal == self.seal for entry in history.entries)
        return self if is_known and self.journal_entry <= history.head else type(self)()

    def last_poll(self, found: Poll) -> datetime | None:
        """Return when the model was looked at before, if that is known."""
        return datetime.fromtimestamp(self.looked_at, UTC) if 0 < self.looked_at <= found.at else None

    def is_due(self, now: float, woken: float | None, poll_seconds: float) -> bool:
        """Whether to look: for what is left, after a wake-up, or when `poll_seconds` have passed."""
        waited = now - self.looked_at + TICK_SECONDS / 2
        # Below 0, the clock was set back.
        return self.has_more or woken != self.woken or not 0 <= waited < poll_seconds

    def is_to_read(self, found: Poll) -> bool:
        """Whether the journal is to be read, and not only the aliases."""
        is_same = self.aliases == found.aliases and self.journal_entry == found.journal_entry
        return self.has_more or not is_same or not 0 <= found.at - self.read_at < READ_SECONDS

    def after(self, found: Poll) -> Self:
        """The same after a look that found nothing."""
        return replace(
            self,
            looked_at=found.at,
            woken=found.woken,
            aliases=dict(found.aliases),
            model_created=found.model_created,
            newest_model=max(self.newest_model, found.newest_model),
        )

    def after_reading(self, found: Poll, journal_entry: int, *, has_more: bool) -> Self:
        """The same after the journal was read."""
        return replace(self.after(found), read_at=found.at, journal_entry=journal_entry, has_more=has_more)


def look(
    context: dg.SensorEvaluationContext, registry: ModelRegistryResource, model: str, seen: Seen
) -> Poll | None:
    """Look at the registry in one call, if it is time to; None: it is not, or there is no such model.

    Raises:
        PermanentFailure: The registry cannot be reached.
    """
    now, woken = time.time(), notified_at(context.instance)
    if not seen.is_due(now, woken, registry.poll_seconds):
        return None
    alias_states = registry.alias_states()
    if model not in alias_states:
        return None
    alias_state = alias_states[model]
    newest = max(each.created for each in alias_states.values())
    return Poll(alias_state.aliases, alias_state.journal_entry, now, woken, alias_state.created, newest)


def run_key(model: str, entry: Entry) -> str:
    """Return the key of a run that an entry of the journal starts.

    Numbers of entries begin with 1 again in the journal of a model that was made anew, and Dagster starts
    nothing for a key that it knows. The seal holds a hash of all entries up to this one.
    """
    number, _, digest = entry.seal.partition(" ")
    return f"{model}-{number}-{digest[:12]}"
