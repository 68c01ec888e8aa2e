"""The request log, as steps read it. Its files: requests/request_log.py."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.requests import request_log
from ledgerline.requests.logged_rows import INPUT, OUTPUT, redacted_columns
from ledgerline.requests.request_log import RequestLogError

if TYPE_CHECKING:
    import pandas as pd


class RequestLogResource(dg.ConfigurableResource):
    """Reads the requests that the service has logged."""

    folder: str | None = Field(
        default=None,
        description="Folder that the service logs requests in; none: they are not logged.",
    )

    def read(self, model: str, since: datetime, until: datetime, enough: int) -> "pd.DataFrame":
        """The rows of requests to a model, in the order in which they came: requests/logged_rows.py.

        Args:
            model: The registered model.
            since: From then on.
            until: Until then.
            enough: The latest are read, until there are so many rows.

        Raises:
            PermanentFailure: Nothing is logged, or a file is damaged.
        """
        if self.folder is None:
            raise PermanentFailure(
                "Requests are not logged: LEDGERLINE_REQUEST_LOG is off.",
                "Set it to a folder, or leave it away, and let `ledgerline serve` answer some.",
            )
        try:
            rows = request_log.read(Path(self.folder), model, since, until, enough=enough)
        except RequestLogError as error:
            raise PermanentFailure(str(error), "Then run this again.") from error
        if rows.empty:
            raise PermanentFailure(
                f"{self.folder} has no request to {model} from {since:%Y-%m-%d %H:%M:%S} UTC on.",
                "Let `ledgerline serve` answer some, name an earlier time, or point LEDGERLINE_REQUEST_LOG "
                "to where it logs them.",
            )
        return rows


def require_logged(rows: "pd.DataFrame", inputs: Sequence[str]) -> None:
    """Refuse rows that lack answers, or some columns, on purpose.

    Args:
        rows: What was read.
        inputs: Columns of the inputs that are needed.

    Raises:
        PermanentFailure: So they do.
    """
    missing = [
        name
        for name in redacted_columns(rows)
        if name.partition(".")[0] == OUTPUT or name.removeprefix(f"{INPUT}.") in inputs
    ]
    if missing:
        raise PermanentFailure(
            f"The request log does not have {', '.join(missing)}: LEDGERLINE_REQUEST_LOG_REDACTED leaves "
            "that out.",
            "Take it from there, start `ledgerline serve` again, and look at requests after that.",
        )
