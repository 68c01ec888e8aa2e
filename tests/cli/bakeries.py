"""Loads the small project beside these tests, with a separate state folder."""

import warnings
from pathlib import Path

from ledgerline.cli import state
from ledgerline.cli.loaded_project import LoadedProject, load
from ledgerline.dagster.settings import Settings
from ledgerline.settings.project import Project

FOLDER = Path(__file__).parent / "bakery"


def bakery() -> LoadedProject:
    """Load its definitions; Dagster warns of the job whose assets have differing backfill policies."""
    loaded = load(Project.from_environment({}, FOLDER))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Asset job bake materializes assets with varying", UserWarning)
        loaded.job("bake")
    return loaded


def settings_of(home: Path, tracking_uri: str) -> Settings:
    """Return its settings, with the state folder made ready."""
    settings = Settings.from_environment(
        {
            "LEDGERLINE_PROJECT": str(FOLDER),
            "LEDGERLINE_HOME": str(home),
            "LEDGERLINE_EXECUTOR": "in_process",
            "MLFLOW_TRACKING_URI": tracking_uri,
        }
    )
    state.prepare(settings)
    return settings
