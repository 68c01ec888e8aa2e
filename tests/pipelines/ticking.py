"""Evaluates the sensors on the registry as Dagster's daemon does, on a real registry and instance."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType
from dagster._core.definitions.sensor_definition import SensorExecutionData

from assets.delay_model import MODEL_NAME
from assets.delay_model_version import FLIGHT_DELAY
from ledgerline.dagster.alerts import AlertResource
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.production import AS_RECORDED
from ledgerline.registry import moves
from ledgerline.registry.history import PROMOTION, Move
from ledgerline.registry.promotion import Mode
from ledgerline.registry.stages import PRODUCTION
from ledgerline.testing.registry_stock import Stock
from pipelines.definitions import defs

REPOSITORY = defs.get_repository_def()
PRODUCTION_ASSET = FLIGHT_DELAY.names.production
staging_changed, production_changed, registry_drift = (
    REPOSITORY.get_sensor_def(FLIGHT_DELAY.names.sensor(each))
    for each in ("staging_changed", "production_changed", "registry_drift")
)
REGISTRY_SENSORS = [staging_changed, production_changed, registry_drift]


@dataclass
class Daemon:
    """Evaluates sensors, stores what they report, and launches requested runs, each run key once.

    Attributes:
        instance: Keeps the reports.
        stock: The registry, which has the model, without versions.
        mode: Whether a person approves.
        poll_seconds: How often sensors poll.
        alert_url: The address of alerts; None: no alerts.
        tracking_uri: The registry of the sensors.
        launched: The requested runs, in order.
        cursors: The cursor of each sensor.
    """

    instance: dg.DagsterInstance
    stock: Stock
    mode: Mode = Mode.automatic
    poll_seconds: float = 0
    alert_url: str | None = None
    tracking_uri: str = ""
    launched: list[dg.RunRequest] = field(default_factory=list)
    cursors: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tracking_uri = self.tracking_uri or self.stock.uri
        self.stock.model(MODEL_NAME, 0)

    def tick(self, sensor: dg.SensorDefinition, *, dies: bool = False) -> SensorExecutionData:
        """One tick.

        Args:
            sensor: Of this sensor.
            dies: The daemon is killed when it has stored what was reported, and nothing else.
        """
        resources = {
            "registry": ModelRegistryResource(
                tracking_uri=self.tracking_uri, promotion=self.mode, poll_seconds=self.poll_seconds
            ),
            "alerts": AlertResource(url=self.alert_url, timeout_seconds=1),
        }
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            resources={name: resources[name] for name in sensor.required_resource_keys},
            repository_def=REPOSITORY,
        ) as context:
            data = sensor.evaluate_tick(context)
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        if not dies:
            self.cursors[sensor.name] = data.cursor
            known = {request.run_key for request in self.launched}
            self.launched += [each for each in data.run_requests or [] if each.run_key not in known]
        return data

    def forget(self, sensor: dg.SensorDefinition) -> None:
        """Lose the cursor."""
        self.cursors.pop(sensor.name)

    def pass_time(self, sensor: dg.SensorDefinition, seconds: float) -> None:
        """Let everything that the sensor remembers be that much longer ago."""
        seen = json.loads(self.cursors[sensor.name] or "")
        earlier = {name: seen[name] - seconds for name in ("looked_at", "read_at")}
        self.cursors[sensor.name] = json.dumps(seen | earlier)

    def start_run(self, job: str, tags: dict[str, str] | None = None, *, minutes_ago: float = 0) -> str:
        """A run that has started."""
        run = dg.DagsterRun(
            job, run_id=str(uuid.uuid4()), tags=tags or {}, status=dg.DagsterRunStatus.STARTED
        )
        created = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        self.instance.run_storage.add_historical_run(run, created)
        return run.run_id

    def start_launched(self) -> str:
        """Start the run that was requested last."""
        request = self.launched[-1]
        return self.start_run(request.job_name or "", dict(request.tags))

    def end_run(self, run_id: str, kind: DagsterEventType = DagsterEventType.RUN_SUCCESS) -> None:
        """Let a run end."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_dagster_event(DagsterEvent(kind.value, job_name=run.job_name), run_id)

    def move_production(self, to: int, run_id: str = "") -> int:
        """Move the alias as a promotion does, without evidence; return the number of its entry."""
        model = self.stock.registered(MODEL_NAME).reconcile()
        wanted = Move(
            at=datetime.now(UTC),
            alias=PRODUCTION,
            from_version=model.history.version_with_alias(PRODUCTION),
            to_version=to,
            cause=PROMOTION,
            by="ada",
            run_id=run_id,
            request=str(uuid.uuid4()),
        )
        return moves.move(model, wanted).history.head

    def set_alias(self, alias: str, version: int) -> None:
        """Move an alias as a person does in MLflow's UI."""
        self.stock.client.set_registered_model_alias(MODEL_NAME, alias, str(version))

    @property
    def materialisations(self) -> Sequence[dg.AssetMaterialization]:
        """The materialisations of production, the earliest first."""
        records = self.instance.fetch_materializations(PRODUCTION_ASSET, limit=100).records
        found = [record.asset_materialization for record in reversed(records)]
        return [each for each in found if each is not None]

    @property
    def materialised(self) -> list[Any]:
        """Return the materialised versions, the earliest first."""
        return [each.metadata["version"].value for each in self.materialisations]

    @property
    def verdicts(self) -> list[tuple[bool, str | None]]:
        """The results of the check, the earliest first."""
        key = dg.AssetCheckKey(PRODUCTION_ASSET, AS_RECORDED)
        history = self.instance.event_log_storage.get_asset_check_execution_history(key, 100)
        found = [each.evaluation for each in reversed(history)]
        return [
            (each.passed, each.description) for each in found if isinstance(each, dg.AssetCheckEvaluation)
        ]


def versions_of(requests: Sequence[dg.RunRequest]) -> list[int]:
    """Return the versions that runs of the release jobs are about."""
    return [request.run_config["ops"]["production_flight_delay"]["config"]["version"] for request in requests]
