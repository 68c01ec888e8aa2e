"""A program that Dagster Pipes starts: it reports the trace in its environment and in its extras."""

import os

from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    pipes.report_asset_materialization(
        metadata={
            "environment": os.environ.get("TRACEPARENT", "nothing"),
            "extras": pipes.extras.get("traceparent", "nothing"),
        }
    )
