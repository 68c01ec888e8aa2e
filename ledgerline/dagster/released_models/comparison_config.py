"""The configuration of a comparison."""

import dagster as dg
from pydantic import Field


class ComparisonConfig(dg.Config):
    """The versions that are compared, and the rows that they are compared on."""

    version: int | None = Field(
        default=None, ge=1, description="Version to evaluate. Default: the one in staging."
    )
    against: int | None = Field(
        default=None, ge=1, description="Version to compare it with. Default: the one in production."
    )
    partition: str | None = Field(
        default=None,
        description=(
            "Partition of the versions' asset (2013-07-01) whose evaluation rows are used. Default: the rows "
            "that the version records."
        ),
    )
    replay_since: str | None = Field(
        default=None,
        description=(
            "Also replay the logged requests to the service since this time (2013-07-01T12:00:00; UTC unless "
            "it has a time zone) with the version, and report how its predictions differ. Default: no replay."
        ),
    )
