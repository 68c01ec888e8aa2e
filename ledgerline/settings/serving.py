"""Declares the variables of `ledgerline serve`."""

from typing import Annotated, Literal

from pydantic import Field

from ledgerline.settings.declaration import Folder, Whole, Words, WordSet, setting
from ledgerline.settings.shared import SharedVariables

MEGABYTE = 1024 * 1024

Seconds = Annotated[float, Field(ge=0, le=3600)]


class ServingVariables(SharedVariables):
    """Serving."""

    model_names: Words = setting(
        "LEDGERLINE_SERVING_MODELS",
        "Registered models to serve, or model@alias, separated by commas. Requests that name no model go to "
        "the first.",
        lambda data: data["project"].models,
        default_text="`models` of [tool.ledgerline]",
        validate_default=True,
    )
    host: str = setting("LEDGERLINE_SERVING_HOST", "Address to listen on.", "127.0.0.1")
    tokens: Words = setting(
        "LEDGERLINE_SERVING_TOKENS",
        "Bearer tokens, separated by commas; clients must send one of them. Without tokens, clients need "
        "none.",
        (),
        hides="value",
    )
    poll_seconds: Seconds = setting(
        "LEDGERLINE_SERVING_POLL_SECONDS",
        "Interval at which the model registry is polled, unless a webhook notifies earlier.",
        1.0,
        unit="seconds",
    )
    signature: Literal["same", "any"] = setting(
        "LEDGERLINE_SERVING_SIGNATURE",
        "Whether a version may be activated that clients of the active version cannot use: same (no) or any "
        "(yes).",
        "same",
    )
    unpickled: WordSet = setting(
        "LEDGERLINE_SERVING_UNPICKLE",
        "Models, separated by commas, that are loaded although their files may run any code: pickled models "
        "and other flavours.",
        frozenset(),
    )
    shadow_share: float = setting(
        "LEDGERLINE_SERVING_SHADOW_SHARE",
        "Share of the requests for which the version in staging predicts, too, in the background.",
        0.0,
        ge=0,
        le=1,
    )
    cache: Folder = setting(
        "LEDGERLINE_SERVING_CACHE",
        "Folder of the versions that were served last, for a start without a registry.",
        lambda data: data["home"] / "serving" / "models",
        default_text="$LEDGERLINE_HOME/serving/models",
    )
    body_megabytes: Whole = setting(
        "LEDGERLINE_SERVING_BODY_MEGABYTES", "Maximum size of a request body.", 16, unit="megabytes", ge=0
    )
    body_seconds: Seconds = setting(
        "LEDGERLINE_SERVING_BODY_SECONDS", "Maximum time to receive a request body.", 10.0, unit="seconds"
    )
    max_rows: Whole = setting("LEDGERLINE_SERVING_ROWS", "Maximum number of rows of a request.", 10_000, ge=0)
    timeout_seconds: Seconds = setting(
        "LEDGERLINE_SERVING_SECONDS", "Maximum time until the response.", 30.0, unit="seconds"
    )
    max_requests: Whole = setting(
        "LEDGERLINE_SERVING_REQUESTS", "Maximum number of concurrent requests.", 256, ge=0
    )
    traces_per_second: float = setting(
        "LEDGERLINE_SERVING_TRACES_PER_SECOND",
        "Maximum number of traces that are started per second for requests without a trace of the caller.",
        2.0,
        ge=0,
        le=10_000,
    )
    request_log_megabytes: Whole = setting(
        "LEDGERLINE_REQUEST_LOG_MEGABYTES",
        "Maximum size of the request log; the oldest files are deleted.",
        512,
        unit="megabytes",
        ge=0,
    )
    redacted: WordSet = setting(
        "LEDGERLINE_REQUEST_LOG_REDACTED",
        "Columns, separated by commas, that are left empty in the request log.",
        frozenset(),
    )

    @property
    def body_bytes(self) -> int:
        """The maximum size of a request body in bytes."""
        return self.body_megabytes * MEGABYTE

    @property
    def request_log_bytes(self) -> int:
        """The maximum size of the request log in bytes."""
        return self.request_log_megabytes * MEGABYTE
