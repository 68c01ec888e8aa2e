"""A program that Dagster Pipes starts: says which trace it was told of, by its environment and by extras."""

import os

from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    pipes.report_asset_materialization(
        metadata={
            "environment": os.environ.get("TRACEPARENT", "nothing"),
            "extras": pipes.extras.get("traceparent", "nothing"),
        }
    )
