"""Imports all private names of Dagster that this library uses, each with the reason.

No other module imports from `dagster._`. A release of Dagster that moves or changes one of these names
therefore breaks this module alone, and tests/ledger/test_dagster_internals.py reports the name and its uses.
Names that `import dagster` loads anyway are imported at once. The others, which load SQLAlchemy or gRPC, are
imported at their first use.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

# They read one setting as an instance does, and report an invalid field by name. The public API can only open
# the whole instance.
from dagster._config import process_config, resolve_to_config_type
from dagster._config.errors import EvaluationError
from dagster._config.stack import get_friendly_path_info

# The public `reconstructable` accepts a function or a job, not the name of a job in a code location.
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

# The public `define_asset_job` returns it, and Dagster exports no name for its type.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# The run launchers of docker/ distinguish a server that is down from a refusal; neither error is public.
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError

# The public cursors are opaque strings; the event log of a run is read from the number of a record on.
from dagster._core.event_api import EventLogCursor

# `report_engine_event` is public, but the class of its metadata is not.
from dagster._core.events import EngineEventData

# The public `execute_job` creates a new run; these runs exist already, with their origin.
from dagster._core.execution.api import execute_run

# The public contexts raise an error outside of a step, and do not distinguish the threads of a step.
from dagster._core.execution.context.compute import current_execution_context

# The constructor of an executor takes it; the public executors cannot be subclassed or preloaded.
from dagster._core.execution.retries import RetryMode

# The public constructors of an instance open all of dagster.yaml; an observer opens the storages alone.
from dagster._core.instance.types import InstanceType

# A custom launcher needs them as base class and argument; Dagster documents both and exports neither.
from dagster._core.launcher import LaunchRunContext, RunLauncher

# A run without its code location cannot be executed again from the UI; only the queries of the UI create one.
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin

# The history of a check has no public reader.
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

# The public API does not state which statuses are final; a list in this library would miss a new status.
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

# `from_config_value` of a launcher takes it.
from dagster._serdes import ConfigurableClassData

if TYPE_CHECKING:
    # The public `multiprocess_executor` has no argument for the modules that its forkserver imports.
    from dagster._core.executor.multiprocess import MultiprocessExecutor

    # Executors that start a pod for each step have these base classes; Dagster does not export them.
    from dagster._core.executor.step_delegating import (
        CheckStepHealthResult,
        StepDelegatingExecutor,
        StepHandler,
        StepHandlerContext,
    )

    # The constructor of an instance takes its storages; Dagster does not export their classes.
    from dagster._core.storage.base_storage import DagsterStorage
    from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage, SqliteEventLogStorage

    # The file names of the databases that these storages open.
    from dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log import SQLITE_EVENT_LOG_FILENAME
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME

    # The constructor of an instance requires both; the public compute log manager creates folders.
    from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
    from dagster._core.storage.root import LocalArtifactStorage
    from dagster._core.storage.runs import SqliteRunStorage
    from dagster._core.storage.sqlite import create_db_conn_string

    # It pings a code server; the public API has no client.
    from dagster._grpc.client import DagsterGrpcClient

# The modules of the names above, which are imported at the first use of the name.
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

# The folder with the migrations of Dagster's storages. The newest one gives the revision of the schema that
# the installed Dagster uses.
MIGRATIONS = Path(dg.__file__).parent / "_core" / "storage" / "alembic"

# The storage that `storage: {sqlite: ...}` in dagster.yaml stands for: its module and class.
SQLITE_STORAGE = ("dagster._core.storage.sqlite_storage", "DagsterSqliteStorage")

# The error class in the event log of a step that was terminated. It is compared as text, because an observed
# instance may use another version of Dagster.
INTERRUPTED_ERROR = "dagster._core.errors.DagsterExecutionInterruptedError"

# The executor of steps, and the modules that a local instance needs. A forkserver preloads them by name and
# skips those that do not exist.
EXECUTOR_MODULE = "dagster._core.executor.multiprocess"
INSTANCE_MODULES = (
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.launcher.default_run_launcher",
    "dagster._core.instance.factory",
)


def __getattr__(name: str) -> Any:
    """Import a name at its first use."""
    if name not in IMPORTED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(IMPORTED_LATER[name]), name)
    globals()[name] = value
    return value
