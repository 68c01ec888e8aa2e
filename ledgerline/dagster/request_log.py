"""The request log as a resource. requests/request_log.py reads its files."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.requests import request_log
from ledgerline.requests.logged_rows import INPUT, OUTPUT, redacted_columns

if TYPE_CHECKING:
    import pandas as pd


class RequestLogResource(dg.ConfigurableResource):
    """Reads the requests that the service has logged."""

    folder: str | None = Field(
        default=None,
        description="Folder of the request log. Default: requests are not logged.",
    )

    def read(self, model: str, since: datetime, until: datetime, enough: int) -> "pd.DataFrame":
        """Return the rows of requests of a period in the order of the requests (requests/logged_rows.py).

        After `enough` rows, no older requests are read.

        Raises:
            PermanentFailure: No request is logged, or a file is damaged.
        """
        if self.folder is None:
            raise PermanentFailure(
                "Requests are not logged: LEDGERLINE_REQUEST_LOG is off.",
                "Set it to a folder, or remove the setting, and send requests to `ledgerline serve`.",
            )
        with permanent_failures():
            rows = request_log.read(Path(self.folder), model, since, until, enough=enough)
        if rows.empty:
            raise PermanentFailure(
                f"{self.folder} has no request to {model} from {since:%Y-%m-%d %H:%M:%S} UTC on.",
                "Send requests to `ledgerline serve`, name an earlier time, or set LEDGERLINE_REQUEST_LOG to "
                "the folder of its request log.",
            )
        return rows


def require_logged(rows: "pd.DataFrame", inputs: Sequence[str]) -> None:
    """Refuse rows of the request log without predictions or these input columns, if the settings redact them.

    Raises:
        PermanentFailure: The predictions or a needed column are redacted.
    """
    missing = [
        name
        for name in redacted_columns(rows)
        if name.partition(".")[0] == OUTPUT or name.removeprefix(f"{INPUT}.") in inputs
    ]
    if missing:
        raise PermanentFailure(
            f"The request log does not contain {', '.join(missing)}, because LEDGERLINE_REQUEST_LOG_REDACTED "
            "redacts it.",
            "Remove it from that setting, restart `ledgerline serve`, and use later requests.",
        )
