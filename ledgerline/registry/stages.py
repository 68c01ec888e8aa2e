"""The stages of a version, and the aliases and tags that say them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

STAGING = "staging"
PRODUCTION = "production"
ARCHIVED = "archived"

ALIASES = (STAGING, PRODUCTION)

# Tags of a version: its stage, and how it came there. Aliases and the journal are the truth, these tell it.
STAGE_TAG = "stage"
PROMOTED_AT_TAG = "promoted_at"
PROMOTED_BY_TAG = "promoted_by"
PROMOTED_FROM_TAG = "promoted_from"
ARCHIVED_AT_TAG = "archived_at"

# Tags of a model: the last entry of its journal whose consequences are all visible, and its seal.
JOURNAL_TAG = "ledgerline.journal_entry"
SEAL_TAG = "ledgerline.journal_seal"

PAGE_SIZE = 1000


@dataclass(frozen=True)
class AliasState:
    """Which versions of a model carry its aliases.

    Attributes:
        aliases: Version by alias.
        journal_entry: The last entry of its journal that was carried out; 0: it has none.
        journal_seal: The seal of an entry of its journal, `journal.Entry.seal`; empty: none is known.
        created: When the model was created, in milliseconds. A name can be given to another model, and a
            model another name; this stays.
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
    """The standing of every model, by name, in one call for each 1,000 of them."""
    found: dict[str, AliasState] = {}
    token: str | None = None
    while True:
        page = client.search_registered_models(max_results=PAGE_SIZE, page_token=token)
        found |= {model.name: alias_state_of(model) for model in page}
        token = page.token
        if not token:
            return found


def alias_state_of(model: "RegisteredModel") -> AliasState:
    """The standing of a model as MLflow has it."""
    # Numbers are text over HTTP, and numbers in a database.
    aliases = {alias: int(version) for alias, version in model.aliases.items()}
    entry = model.tags.get(JOURNAL_TAG, "")
    # A person can write anything into a tag; what is no number is written anew.
    return AliasState(
        aliases,
        int(entry) if entry.isdecimal() else 0,
        model.tags.get(SEAL_TAG, ""),
        int(model.creation_timestamp or 0),
    )
