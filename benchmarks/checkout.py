"""The checkout that is measured."""

from pathlib import Path

from ledgerline.settings.project import Project

PROJECT_ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = Project.found({}, PROJECT_ROOT).experiment
