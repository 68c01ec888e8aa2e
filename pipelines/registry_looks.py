"""When a sensor looks at the model registry, and what it remembers. What it does: registry_sensors.py."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

import dagster as dg

from pipelines.wake import woken_at
from resources.registry import ModelRegistryResource

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
class Look:
    """What a sensor found when it looked.

    Attributes:
        aliases: Version by alias.
        journal_entry: The last entry of the journal that was carried out.
        at: When it looked, in seconds since 1970.
        before: When it had looked the time before, if ever.
        woken: The last wake-up by then.
    """

    aliases: Mapping[str, int]
    journal_entry: int
    at: float
    before: datetime | None
    woken: float | None


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
    """

    looked_at: float = 0
    read_at: float = 0
    woken: float | None = None
    aliases: dict[str, int] = field(default_factory=dict)
    journal_entry: int = 0
    has_more: bool = False

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """What a cursor says; without one, nothing was seen."""
        return cls(**json.loads(cursor)) if cursor else cls()

    @property
    def cursor(self) -> str:
        """To be kept by Dagster."""
        return json.dumps(asdict(self), sort_keys=True)

    def is_due(self, now: float, woken: float | None, poll_seconds: float) -> bool:
        """Whether to look: for what is left, after a wake-up, or when `poll_seconds` have passed."""
        waited = now - self.looked_at + TICK_SECONDS / 2
        # Below 0, the clock was set back.
        return self.has_more or woken != self.woken or not 0 <= waited < poll_seconds

    def is_to_read(self, found: Look) -> bool:
        """Whether the journal is to be read, and not only the aliases."""
        is_same = self.aliases == found.aliases and self.journal_entry == found.journal_entry
        return self.has_more or not is_same or not 0 <= found.at - self.read_at < READ_SECONDS

    def after(self, found: Look) -> Self:
        """The same after a look that found nothing."""
        return replace(self, looked_at=found.at, woken=found.woken, aliases=dict(found.aliases))

    def after_reading(self, found: Look, journal_entry: int, *, has_more: bool) -> Self:
        """The same after the journal was read."""
        return replace(self.after(found), read_at=found.at, journal_entry=journal_entry, has_more=has_more)


def look(
    context: dg.SensorEvaluationContext, registry: ModelRegistryResource, model: str, seen: Seen
) -> Look | None:
    """Look at the registry in one call, if it is time to; None: it is not, or there is no such model.

    Raises:
        PermanentFailure: The registry cannot be reached.
    """
    now, woken = time.time(), woken_at(context.instance)
    if not seen.is_due(now, woken, registry.poll_seconds):
        return None
    standing = registry.standings().get(model)
    if standing is None:
        return None
    before = datetime.fromtimestamp(seen.looked_at, UTC) if 0 < seen.looked_at <= now else None
    return Look(standing.aliases, standing.journal_entry, now, before, woken)
