"""The stages of a version, and the aliases and tags that record them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledgerline.mlflow_store.store import paged

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

STAGING = "staging"
PRODUCTION = "production"
ARCHIVED = "archived"

ALIASES = (STAGING, PRODUCTION)

# Tags of a version: its stage, and the last move. The aliases and the journal are authoritative, not the
# tags.
STAGE_TAG = "stage"
PROMOTED_AT_TAG = "promoted_at"
PROMOTED_BY_TAG = "promoted_by"
PROMOTED_FROM_TAG = "promoted_from"
ARCHIVED_AT_TAG = "archived_at"

# Tags of a model: the last entry of its journal that aliases and tags reflect, and its seal.
JOURNAL_TAG = "ledgerline.journal_entry"
SEAL_TAG = "ledgerline.journal_seal"

PAGE_SIZE = 1000


@dataclass(frozen=True)
class AliasState:
    """The aliases of a model, and what its tags record of its journal.

    Attributes:
        aliases: Version by alias.
        journal_entry: Last entry of its journal that was carried out; 0 without a journal.
        journal_seal: Seal of an entry of its journal, `history.Entry.seal`; empty if unknown.
        created: Creation time of the model, in milliseconds, which its name does not change.
    """

    aliases: Mapping[str, int]
    journal_entry: int
    journal_seal: str = ""
    created: int = field(default=0, compare=False)  # it never changes

    @property
    def has_journal(self) -> bool:
        """True if the model's tags refer to a journal."""
        return bool(self.journal_seal or self.journal_entry)


def alias_states(client: "MlflowClient") -> dict[str, AliasState]:
    """Return the alias state of every model, by name, in one call for each 1,000 models."""
    models = paged(lambda token: client.search_registered_models(max_results=PAGE_SIZE, page_token=token))
    return {model.name: alias_state_of(model) for model in models}


def alias_state_of(model: "RegisteredModel") -> AliasState:
    """Return the alias state of a model that MLflow has returned."""
    # Version numbers are text over HTTP, and integers in a database.
    aliases = {alias: int(version) for alias, version in model.aliases.items()}
    entry = model.tags.get(JOURNAL_TAG, "")
    # A person can write anything into a tag; a value that is not a number is replaced.
    return AliasState(
        aliases,
        int(entry) if entry.isdecimal() else 0,
        model.tags.get(SEAL_TAG, ""),
        int(model.creation_timestamp or 0),
    )
