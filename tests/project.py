"""The project of these tests."""

from pathlib import Path

from ledgerline.settings.project import Project

PROJECT_ROOT = Path(__file__).resolve().parents[1]
PROJECT = Project.from_environment({}, PROJECT_ROOT)
EXPERIMENT = PROJECT.experiment
