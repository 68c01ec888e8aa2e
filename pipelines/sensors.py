"""Declares the sensor that starts runs for automation conditions."""

import dagster as dg

# It evaluates the automation conditions that assets declare (assets/policies.py).
automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)

SENSORS = [automation]
