"""Reads the storage settings of a Dagster instance from dagster.yaml, and no other settings.

The run launcher, the coordinator, compute logs, monitoring and settings of other versions of Dagster need not
be valid, and their packages need not be installed. instances.py opens the storages.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import yaml
from dagster_shared.yaml_utils import load_yaml_from_path

from ledgerline.errors import LedgerlineError
from ledgerline.ledger.dagster_internals import (
    SQLITE_STORAGE,
    EvaluationError,
    get_friendly_path_info,
    process_config,
    resolve_to_config_type,
)
from ledgerline.settings.extras import remedy

CONFIG_FILE = "dagster.yaml"
STORAGE, RUN_STORAGE, EVENT_STORAGE = "storage", "run_storage", "event_log_storage"
# The values below `storage`, each with its package and the class that combines all storages.
UNIFIED: Mapping[str, tuple[str, str]] = {
    "sqlite": SQLITE_STORAGE,
    "postgres": ("dagster_postgres", "DagsterPostgresStorage"),
    "mysql": ("dagster_mysql", "DagsterMySQLStorage"),
}
# For each class that combines all storages: its classes for runs and for events.
PARTS = {
    "DagsterPostgresStorage": ("PostgresRunStorage", "PostgresEventLogStorage"),
    "DagsterMySQLStorage": ("MySQLRunStorage", "MySQLEventLogStorage"),
}
# The command that installs the package of a storage, by module.
INSTALLED_BY = {
    "dagster_postgres": remedy("postgres"),
    "dagster_mysql": "Install it: pip install dagster-mysql==0.29.27.",
}
UNSET_VARIABLE = re.compile(r'environment variable "([^"]+)" which is not set')


class InstanceError(LedgerlineError):
    """A Dagster instance cannot be opened or read."""


@dataclass(frozen=True)
class StorageConfig:
    """The configuration of a storage.

    Attributes:
        setting: Setting in dagster.yaml, for messages.
        value: Config of the class, with the values of environment variables.
    """

    setting: str
    storage: type[Any]
    value: Mapping[str, Any]


class Storages(NamedTuple):
    """The storages that an observer reads. Both are equal if one class stores runs and events."""

    runs: StorageConfig
    events: StorageConfig


def storages_of(home: Path) -> Storages:
    """Return the storages of an instance without opening them.

    Raises:
        InstanceError: The file dagster.yaml cannot be read, or does not configure the storages.
    """
    file = home / CONFIG_FILE
    settings = _settings_in(file)
    separate = [name for name in (RUN_STORAGE, EVENT_STORAGE, "schedule_storage") if settings.get(name)]
    if separate and settings.get(STORAGE):
        raise InstanceError(f"{file} has both {STORAGE} and {separate[0]}.", "Remove one of them.")
    if separate:
        return Storages(
            _separate(file, settings, RUN_STORAGE) or _sqlite(home).runs,
            _separate(file, settings, EVENT_STORAGE) or _sqlite(home).events,
        )
    if settings.get(STORAGE):
        return _unified(file, settings[STORAGE])
    own_class = settings.get("instance_class")
    if own_class and not (home / "history").exists():
        raise InstanceError(
            f"{file} has a custom instance class and configures no storage, so its runs cannot be read."
        )
    return _sqlite(home)


def _settings_in(file: Path) -> Mapping[str, Any]:
    try:
        settings = load_yaml_from_path(str(file)) if file.exists() else None
    except OSError as error:
        raise InstanceError(f"{file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The message does not contain the line itself, which may have a password.
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or "it is not text in UTF-8"
        raise InstanceError(f"{file} is not valid YAML{where}: {why}.") from error
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise InstanceError(f"{file} is not a valid dagster.yaml: it is not a mapping of settings.")
    return settings


def _sqlite(base: Path, setting: str = "the default storage") -> Storages:
    """Return the SQLite storages of an instance whose dagster.yaml names no classes of storages."""
    from ledgerline.ledger.dagster_internals import SqliteEventLogStorage, SqliteRunStorage

    runs = base / "history"
    return Storages(
        StorageConfig(setting, SqliteRunStorage, {"base_dir": str(runs)}),
        StorageConfig(setting, SqliteEventLogStorage, {"base_dir": str(runs / "runs")}),
    )


def _unified(file: Path, setting: Any) -> Storages:
    kinds = ", ".join([*UNIFIED, "custom"])
    if not isinstance(setting, Mapping) or len(setting) != 1:
        raise InstanceError(f"{file} must have one of {kinds} below {STORAGE}.")
    ((kind, config),) = setting.items()
    name = f"{STORAGE}.{kind}"
    if kind in UNIFIED:
        configured = _configured(file, name, *UNIFIED[kind], config)
    elif kind != "custom":
        raise InstanceError(
            f"{file} has {name}, which Dagster {dg.__version__} does not know.",
            f"Use one of {kinds} below {STORAGE}.",
        )
    elif (configured := _separate(file, {name: config}, name)) is None:
        raise InstanceError(f"{file} has no value for {name}.", "Name a module and a class there.")
    storage = configured.storage
    if storage.__name__ == SQLITE_STORAGE[1]:
        return _sqlite(Path(configured.value["base_dir"]), name)
    if storage.__name__ not in PARTS:
        return Storages(configured, configured)
    module = importlib.import_module(storage.__module__.partition(".")[0])
    runs, events = (getattr(module, part) for part in PARTS[storage.__name__])
    return Storages(replace(configured, storage=runs), replace(configured, storage=events))


def _separate(file: Path, settings: Mapping[str, Any], name: str) -> StorageConfig | None:
    """Return a storage that is configured by its class; None if it is not configured."""
    setting = settings.get(name)
    if not setting:
        return None
    if not isinstance(setting, Mapping) or not {"module", "class"} <= set(setting):
        raise InstanceError(f"{file} must name a module and a class below {name}.")
    return _configured(file, name, setting["module"], setting["class"], setting.get("config"))


def _configured(file: Path, name: str, module: str, storage: str, config: Any) -> StorageConfig:
    try:
        storage_class = getattr(importlib.import_module(module), storage)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        command = INSTALLED_BY.get(
            module.partition(".")[0], f"Install the package with the module {missing}."
        )
        raise InstanceError(
            f"{file} stores runs in {name}, which needs {missing}, and {missing} is not installed.", command
        ) from error
    except (ImportError, AttributeError) as error:
        raise InstanceError(
            f"{file} stores runs in {name}, but {module}.{storage} cannot be imported: {error}."
        ) from error
    if not hasattr(storage_class, "config_type"):
        raise InstanceError(f"{file} stores runs in {name}, but {module}.{storage} is not a storage class.")
    result = process_config(resolve_to_config_type(storage_class.config_type()), config or {})
    if not result.success:
        raise InstanceError(f"{file} cannot be used: {_problem(name, result.errors or [])}")
    return StorageConfig(name, storage_class, result.value or {})


def _problem(name: str, errors: Sequence[EvaluationError]) -> str:
    """Describe the problem with a setting, without its value, which may contain a password."""
    unset = [match[1] for error in errors if (match := UNSET_VARIABLE.search(error.message))]
    if unset:
        variables = ", ".join(dict.fromkeys(unset))
        return f"{name} takes its values from environment variables that are not set: {variables}."
    error = errors[0]
    place = name + get_friendly_path_info(error.stack)[1].removeprefix("root").replace(":", ".")
    fields = getattr(error.error_data, "field_names", None) or [getattr(error.error_data, "field_name", None)]
    named = ", ".join(str(field) for field in fields if field)
    if error.reason.name.startswith("FIELD"):
        return f"Dagster {dg.__version__} does not know {named} below {place}."
    if error.reason.name.startswith("MISSING"):
        return f"{place} lacks {named}."
    return f"the value of {place} is not valid for Dagster {dg.__version__}."
