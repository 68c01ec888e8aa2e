"""The configuration of a comparison."""

import dagster as dg
from pydantic import Field


class ComparisonConfig(dg.Config):
    """Which versions are compared, and on what."""

    version: int | None = Field(default=None, ge=1, description="The version. Default: the one in staging.")
    against: int | None = Field(
        default=None, ge=1, description="Compared with this version. Default: the one in production."
    )
    partition: str | None = Field(
        default=None,
        description=(
            "On the rows that the version of this partition is evaluated on (2013-07-01). Default: on those "
            "that the version records."
        ),
    )
    replay_since: str | None = Field(
        default=None,
        description=(
            "Ask the version, too, what the service was asked from then on (2013-07-01T12:00:00; UTC unless "
            "it has a time zone), and report how its answers differ. Default: do not."
        ),
    )
