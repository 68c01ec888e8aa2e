"""Sends an alert when production changes: one JSON message to a webhook, such as those of chat programs."""

import dagster as dg
from pydantic import Field

from ledgerline.cleaning.texts import clean, cleaned, shortened
from ledgerline.errors import LedgerlineError
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.registry.history import End, Entry, Move

MAX_TEXT_LENGTH = 4000  # characters; Slack cuts longer messages


class AlertError(LedgerlineError):
    """An alert could not be delivered."""


class AlertResource(dg.ConfigurableResource):
    """Posts `{"text": ...}` with the change of an alias and its cause. Without a URL it does nothing.

    Names and reasons are sent without secrets (cleaning/texts.py).
    """

    url: str | None = Field(default=None, description="URL to post to, such as an incoming webhook of Slack.")
    timeout_seconds: float = Field(default=5, gt=0, description="Maximum seconds to wait for a response.")

    def tell(self, model: str, entry: Entry, move: Move, end: End) -> None:
        """Send an alert about the move of an alias.

        An alert may be sent twice if a process dies after sending it; both have the same `journal_seal`. The
        journal of a model that was deleted and registered again begins with `journal_entry` 1.

        Raises:
            AlertError: The alert URL does not accept the message.
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
        # Errors do not contain the URL, because webhook URLs of chat programs are secrets.
        try:
            response = requests.post(
                self.url, json=cleaned(document), timeout=self.timeout_seconds, allow_redirects=False
            )
        except requests.RequestException as error:
            raise AlertError(
                f"The alert URL cannot be reached: {type(error).__name__}.", "Check LEDGERLINE_ALERT_URL."
            ) from None
        if not 200 <= response.status_code < 300:
            # A redirect is an error, too: following it would send a GET request without the message.
            raise AlertError(
                f"The alert URL does not accept the message: it responds with status {response.status_code}.",
                "Check LEDGERLINE_ALERT_URL.",
            )


def _text(model: str, move: Move, end: End) -> str:
    when = f"at {end.at:%Y-%m-%d %H:%M:%S} UTC"
    if move.not_before is not None:
        when = f"between {move.not_before:%Y-%m-%d %H:%M:%S} and {end.at:%H:%M:%S} UTC"
    names = [
        f"version {version}" if version else "no version" for version in (move.from_version, move.to_version)
    ]
    text = f"{move.alias} of {model}: {names[0]} -> {names[1]} {when}, {move.cause} by {move.by}"
    return clean(f"{text}: {move.reason}" if move.reason else text)
