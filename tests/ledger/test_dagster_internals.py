"""Tests that Dagster's private API is as the only module that imports it expects.

Reads the source, so that one name that a new Dagster lacks does not hide the others.
"""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alembic.script import ScriptDirectory

ROOT = Path(__file__).parents[2]
INTERNALS = ROOT / "ledgerline" / "ledger" / "dagster_internals.py"
MODULE = "ledgerline.ledger.dagster_internals"
FOLDERS = ("ledgerline", "assets", "pipelines", "resources", "docker", "benchmarks")

Check = Callable[[Any], bool]


def has(*attributes: str) -> Check:
    """Expect attributes, or the fields of a tuple or record."""

    def check(found: Any) -> bool:
        fields = {*dir(found), *getattr(found, "__annotations__", ())}
        return set(attributes) <= fields

    return check


def takes(*parameters: str) -> Check:
    """Expect these parameters by these names, and that no other is required."""

    def check(found: Any) -> bool:
        known = inspect.signature(found).parameters
        required = {
            name
            for name, parameter in known.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        return set(parameters) <= set(known) and required <= set(parameters)

    return check


def is_error(found: Any) -> bool:
    return issubclass(found, dg.DagsterError)


# For each name, everything that its users rely on.
EXPECTED: Mapping[str, tuple[Check, ...]] = {
    "AssetCheckExecutionRecord": (has("id", "run_id", "evaluation"),),
    "CheckStepHealthResult": (has("is_healthy", "unhealthy_reason", "unhealthy"),),
    "ConfigurableClassData": (inspect.isclass,),
    "ConsolidatedSqliteEventLogStorage": (takes("base_dir"), has("_connect", "from_config_value")),
    "DagsterGrpcClient": (takes("host", "port"), has("ping")),
    "DagsterLaunchFailedError": (is_error,),
    "DagsterStorage": (has("run_storage", "event_log_storage"),),
    "DagsterUserCodeUnreachableError": (is_error,),
    "EngineEventData": (takes("metadata"),),
    "EvaluationError": (has("stack", "reason", "message", "error_data"),),
    "EventLogCursor": (
        has("parse", "from_storage_id"),
        lambda cursor: cursor.parse(cursor.from_storage_id(7).to_string()).storage_id() == 7,
    ),
    "INDEX_SHARD_NAME": (lambda name: isinstance(name, str),),
    "InstanceType": (has("PERSISTENT"),),
    "LaunchRunContext": (has("dagster_run"),),
    "LoadableTargetOrigin": (
        lambda origin: origin(executable_path="python", module_name="m", working_directory="."),
    ),
    "LocalArtifactStorage": (takes("base_dir"),),
    "ManagedGrpcPythonEnvCodeLocationOrigin": (takes("loadable_target_origin", "location_name"),),
    "MultiprocessExecutor": (
        takes("retries", "max_concurrent", "tag_concurrency_limits", "start_method"),
        takes("retries", "max_concurrent", "explicit_forkserver_preload"),
    ),
    "NOT_FINISHED_STATUSES": (
        lambda statuses: dg.DagsterRunStatus.STARTED in statuses,
        lambda statuses: dg.DagsterRunStatus.SUCCESS not in statuses,
    ),
    "NoOpComputeLogManager": (takes(),),
    "ReconstructableJob": (has("get_definition", "get_python_origin"),),
    "ReconstructableRepository": (has("for_module", "get_reconstructable_job"),),
    "RemoteRepositoryOrigin": (has("code_location_origin", "repository_name", "get_job_origin"),),
    "RetryMode": (has("ENABLED"),),
    "RunLauncher": (has("launch_run", "terminate", "register_instance"), takes()),
    "SQLITE_EVENT_LOG_FILENAME": (lambda name: isinstance(name, str),),
    "SqliteEventLogStorage": (
        takes("base_dir"),
        has("from_config_value"),
        lambda storage: takes("self", "shard")(storage._connect),
    ),
    "SqliteRunStorage": (takes("conn_string"), has("connect", "from_config_value")),
    "StepDelegatingExecutor": (takes("step_handler", "retries"), has("execute")),
    "StepHandler": (has("name", "launch_step", "terminate_step", "check_step_health"),),
    "StepHandlerContext": (has("execute_step_args", "instance", "get_step_context"),),
    "UnresolvedAssetJobDefinition": (has("name"),),
    "create_db_conn_string": (lambda address: address("/folder", "runs").startswith("sqlite:///"),),
    "current_execution_context": (
        lambda context: isinstance(context, ContextVar),
        lambda context: context.get() is None,
    ),
    "execute_run": (takes("job", "dagster_run", "instance"),),
    "get_friendly_path_info": (takes("stack"),),
    "process_config": (
        lambda process: process({"a": dg.Field(int)}, {"a": 1}).value == {"a": 1},
        lambda process: process({"a": dg.Field(int)}, {"b": 1}).errors[0].reason.name.startswith("FIELD"),
        lambda process: process({"a": dg.Field(int)}, {}).errors[0].reason.name.startswith("MISSING"),
    ),
    "resolve_to_config_type": (lambda resolve: resolve({"a": dg.Field(int)}) is not None,),
}


def imports(module: Path) -> list[tuple[str, str]]:
    """Return what a module imports from others, as pairs of module and name."""
    return [
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


MODULES = sorted(module for folder in FOLDERS for module in (ROOT / folder).rglob("*.py"))
PRIVATE = {name: module for module, name in imports(INTERNALS) if module.startswith("dagster._")}


def users(name: str) -> list[str]:
    return [str(module.relative_to(ROOT)) for module in MODULES if (MODULE, name) in imports(module)]


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_dagster_still_has(name: str) -> None:
    message = f"Dagster {dg.__version__}: {PRIVATE[name]}.{name}, which {' and '.join(users(name))} need,"
    try:
        found = getattr(import_module(PRIVATE[name]), name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{message} is gone: {error}")
    assert name in EXPECTED, f"Say in EXPECTED what is expected of {name}."
    for number, check in enumerate(EXPECTED[name]):
        try:
            as_expected = check(found)
        except Exception as error:  # noqa: BLE001 (whatever a changed name does)
            as_expected = False
            message += f" raises {error!r}, and"
        assert as_expected, f"{message} is not as expected (check {number} of {name} in EXPECTED)."


def test_every_name_is_used_and_no_other_is_expected() -> None:
    assert EXPECTED.keys() == PRIVATE.keys()
    assert [name for name in PRIVATE if not users(name)] == []


def test_names_that_are_imported_later_are_those_of_the_statements() -> None:
    from ledgerline.ledger import dagster_internals

    later = dagster_internals.IMPORTED_LATER
    assert later == {name: PRIVATE[name] for name in later}
    for name in PRIVATE:
        assert getattr(dagster_internals, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'gone'"):
        _ = dagster_internals.gone


def test_modules_and_classes_that_are_known_by_their_names_are_there() -> None:
    from ledgerline.ledger import dagster_internals

    module, storage = dagster_internals.SQLITE_STORAGE
    assert issubclass(getattr(import_module(module), storage), dagster_internals.DagsterStorage)
    error = dg.DagsterExecutionInterruptedError
    assert f"{error.__module__}.{error.__name__}" == dagster_internals.INTERRUPTED_ERROR
    for preloaded in (dagster_internals.EXECUTOR_MODULE, *dagster_internals.INSTANCE_MODULES):
        assert import_module(preloaded).__name__ == preloaded
    assert ScriptDirectory(str(dagster_internals.MIGRATIONS)).get_current_head()


def modules_of(code: str) -> set[str]:
    """Return the modules that a new process has loaded after a piece of code."""
    ending = f"{code}; import sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", ending], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_the_module_loads_nothing_more_than_dagster() -> None:
    assert modules_of(f"import {MODULE}") - modules_of("import dagster") == {
        "ledgerline",
        "ledgerline.ledger",
        MODULE,
    }


def test_no_other_module_imports_private_names() -> None:
    private = re.compile(r"^\s*(from|import) dagster\._", re.MULTILINE)
    named = [module for module in MODULES if private.search(module.read_text())]
    assert [str(module.relative_to(ROOT)) for module in named] == [str(INTERNALS.relative_to(ROOT))]
    # The library does not have the names of its modules either.
    library = [module for module in MODULES if module.is_relative_to(ROOT / "ledgerline")]
    assert [module for module in library if "dagster._" in module.read_text()] == [INTERNALS]
