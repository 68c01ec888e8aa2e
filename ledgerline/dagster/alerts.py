"""Telling people that production moved: one message to an address that takes JSON, as chat programs do."""

import dagster as dg
from pydantic import Field

from ledgerline.cleaning.texts import clean, cleaned, shortened
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.registry.history import End, Entry, Move

MAX_TEXT_LENGTH = 4000  # characters; Slack cuts longer messages


class AlertError(Exception):
    """The message could not be delivered."""


class AlertResource(dg.ConfigurableResource):
    """Posts `{"text": ...}` with what moved and who did it; without an address, nothing.

    Names and reasons, which people and programs chose, are sent without secrets: cleaning/texts.py.
    """

    url: str | None = Field(default=None, description="Where to post; Slack's incoming webhooks fit.")
    timeout_seconds: float = Field(
        default=5, gt=0, description="How long to wait for the address to answer, in seconds."
    )

    def tell(self, model: str, entry: Entry, move: Move, end: End) -> None:
        """Say that an alias moved.

        A move that is told twice, because a process died just after, has the same `journal_seal`. The journal
        of a model that was made anew begins with `journal_entry` 1 again.

        Raises:
            AlertError: The address does not take it.
        """
        if self.url is None:
            return
        import requests

        document = {
            "text": shortened(_text(model, move, end), MAX_TEXT_LENGTH),
            "model": model,
            "alias": move.alias,
            "from_version": move.from_version,
            "to_version": move.to_version,
            "cause": move.cause,
            "by": move.by,
            "reason": move.reason,
            "at": end.at.isoformat(timespec="seconds"),
            "not_before": move.not_before.isoformat(timespec="seconds") if move.not_before else None,
            "evidence_sha256": move.evidence,
            RUN_ID_TAG: move.run_id,
            "journal_entry": entry.number,
            "journal_seal": entry.seal,
        }
        # Errors do not repeat the address: of chat programs that is a secret.
        try:
            answer = requests.post(
                self.url, json=cleaned(document), timeout=self.timeout_seconds, allow_redirects=False
            )
        except requests.RequestException as error:
            raise AlertError(f"The alert address cannot be reached: {type(error).__name__}.") from None
        if not 200 <= answer.status_code < 300:
            # A redirect, too: followed, it would become a GET without the message.
            raise AlertError(f"The alert address does not take messages: it answers {answer.status_code}.")


def _text(model: str, move: Move, end: End) -> str:
    when = f"at {end.at:%Y-%m-%d %H:%M:%S} UTC"
    if move.not_before is not None:
        when = f"between {move.not_before:%Y-%m-%d %H:%M:%S} and {end.at:%H:%M:%S} UTC"
    names = [
        f"version {version}" if version else "no version" for version in (move.from_version, move.to_version)
    ]
    text = f"{move.alias} of {model}: {names[0]} -> {names[1]} {when}, {move.cause} by {move.by}"
    return clean(f"{text}: {move.reason}" if move.reason else text)
