"""What starts runs without a clock."""

import dagster as dg

# Carries out the automation conditions that assets declare (assets/policies.py).
automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)

SENSORS = [automation]
