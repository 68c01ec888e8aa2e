"""Finds the name that the workspace of a project gives to its definitions."""

from typing import Any

import yaml

from ledgerline.settings.project import Project

FILE = "workspace.yaml"


def location_name(project: Project) -> str:
    """Return the name of the code location in the workspace, or else, as Dagster does, that of the module."""
    modules = [entry.get("python_module") for entry in _entries(project) if isinstance(entry, dict)]
    for module in modules:
        if isinstance(module, dict) and module.get("module_name") == project.module:
            return str(module.get("location_name") or project.module)
    return project.module


def _entries(project: Project) -> list[Any]:
    try:
        workspace = yaml.safe_load((project.root / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []  # runs of the command line need no workspace, and `dagster dev` reports a wrong one
    entries = workspace.get("load_from") if isinstance(workspace, dict) else None
    return entries if isinstance(entries, list) else []
