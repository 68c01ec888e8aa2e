"""Dagster's private API: all names of it that this library uses, each with the reason why no public one does.

No other module imports anything below `dagster._`. So a new Dagster that moves or changes one of them breaks
this module alone, and tests/ledger/test_dagster_internals.py says which name it is, and where it is used.
Names that `import dagster` has loaded already are imported at once; the others, which would load SQLAlchemy
or gRPC, when they are first asked for.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

# They read one setting as an instance does, and name a wrong field; the public way makes the whole instance.
from dagster._config import process_config, resolve_to_config_type
from dagster._config.errors import EvaluationError
from dagster._config.stack import get_friendly_path_info

# The public `reconstructable` takes a function or a job, not the name of a job in a code location.
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

# The public `define_asset_job` returns it, and Dagster exports no name for its type.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# The run launchers of docker/ tell a server that is down from one that refuses; neither error is public.
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError

# The public cursors are opaque texts; a run is read on from the number of a record.
from dagster._core.event_api import EventLogCursor

# `report_engine_event` is public, and what gives the event its metadata is not.
from dagster._core.events import EngineEventData

# The public `execute_job` makes a run of its own; these runs have been made before, with their origin.
from dagster._core.execution.api import execute_run

# The public contexts raise outside of a step, and know nothing of the threads of one.
from dagster._core.execution.context.compute import current_execution_context

# The constructor of an executor takes it; the public executors cannot be subclassed or preloaded.
from dagster._core.execution.retries import RetryMode

# The public constructors of an instance open all of dagster.yaml; an observer opens the storages alone.
from dagster._core.instance.types import InstanceType

# A launcher of one's own has these as its base and its argument; Dagster documents them and exports neither.
from dagster._core.launcher import LaunchRunContext, RunLauncher

# A run without its code location cannot be executed again from the UI; only the UI's own queries make one.
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin

# The history of a check has no public reader.
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

# The public statuses do not say which of them a run can still leave; a list of our own would miss a new one.
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

# What `from_config_value` of a launcher takes.
from dagster._serdes import ConfigurableClassData

if TYPE_CHECKING:
    # The public `multiprocess_executor` has no argument for the modules that its forkserver imports.
    from dagster._core.executor.multiprocess import MultiprocessExecutor

    # Executors that start a pod for each step have these as their base; Dagster exports none.
    from dagster._core.executor.step_delegating import (
        CheckStepHealthResult,
        StepDelegatingExecutor,
        StepHandler,
        StepHandlerContext,
    )

    # An instance is made of its storages, and Dagster exports no class of them.
    from dagster._core.storage.base_storage import DagsterStorage
    from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage, SqliteEventLogStorage

    # The names of the databases that these storages open.
    from dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log import SQLITE_EVENT_LOG_FILENAME
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME

    # The constructor of an instance requires both; the public compute log manager makes folders.
    from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
    from dagster._core.storage.root import LocalArtifactStorage
    from dagster._core.storage.runs import SqliteRunStorage
    from dagster._core.storage.sqlite import create_db_conn_string

    # Asks a code server whether it answers.
    from dagster._grpc.client import DagsterGrpcClient

# The modules of the names above, which are imported when they are first asked for.
IMPORTED_LATER = {
    "CheckStepHealthResult": "dagster._core.executor.step_delegating",
    "ConsolidatedSqliteEventLogStorage": "dagster._core.storage.event_log",
    "DagsterGrpcClient": "dagster._grpc.client",
    "DagsterStorage": "dagster._core.storage.base_storage",
    "INDEX_SHARD_NAME": "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "LocalArtifactStorage": "dagster._core.storage.root",
    "MultiprocessExecutor": "dagster._core.executor.multiprocess",
    "NoOpComputeLogManager": "dagster._core.storage.noop_compute_log_manager",
    "SQLITE_EVENT_LOG_FILENAME": "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log",
    "SqliteEventLogStorage": "dagster._core.storage.event_log",
    "SqliteRunStorage": "dagster._core.storage.runs",
    "StepDelegatingExecutor": "dagster._core.executor.step_delegating",
    "StepHandler": "dagster._core.executor.step_delegating",
    "StepHandlerContext": "dagster._core.executor.step_delegating",
    "create_db_conn_string": "dagster._core.storage.sqlite",
}

# The folder of the migrations of Dagster's storages, of which the newest is the schema of this Dagster.
MIGRATIONS = Path(dg.__file__).parent / "_core" / "storage" / "alembic"

# The storage that `storage: {sqlite: ...}` in dagster.yaml stands for: its module and class.
SQLITE_STORAGE = ("dagster._core.storage.sqlite_storage", "DagsterSqliteStorage")

# The class in the event log of a step that was stopped; other homes may be of another Dagster.
INTERRUPTED_ERROR = "dagster._core.errors.DagsterExecutionInterruptedError"

# The executor of steps, and what opening the instance of a local deployment imports. A forkserver preloads
# them by name, and goes on without those that do not exist.
EXECUTOR_MODULE = "dagster._core.executor.multiprocess"
INSTANCE_MODULES = (
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.launcher.default_run_launcher",
    "dagster._core.instance.factory",
)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in IMPORTED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(IMPORTED_LATER[name]), name)
    globals()[name] = found
    return found
