"""Tests what `ledgerline observe --dagster-home` writes to an instance, also with --read-only."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.storages.instances import only_read_instance
from tests.cli.command_lines import LEDGERLINE, Ledgerline
from tests.cli.foreign_homes import baked, contents, links_reported, run_ids, runs_in
from tests.project import PROJECT_ROOT

pytestmark = pytest.mark.usefixtures("mlflow_with_tables")


def test_links_and_cursors_are_written_to_it_and_reported(
    ledgerline: Ledgerline, home: Path, tmp_path: Path
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert (
        "Two things are written to that instance: an event in each run, which links to its trace"
        in result.stdout
    )
    assert "--read-only writes nothing to it." in result.stdout
    assert links_reported(home, run_id)


def test_read_only_changes_no_file_however_often(
    ledgerline: Ledgerline, home: Path, client: MlflowClient
) -> None:
    before = contents(home)
    for command in (["--all"], ["--all", "--since", "1h"]):
        result = ledgerline("observe", *command, "--dagster-home", home, "--read-only")
        assert result.exit_code == 0, result.output
        assert "Nothing is written to that instance: --read-only." in result.stdout
        assert contents(home) == before
    assert len(runs_in(client, "bakery")) == 1


def test_read_only_reads_concurrent_writes_also_from_the_write_ahead_log(home: Path, tmp_path: Path) -> None:
    with (
        dg.DagsterInstance.from_config(str(home)) as theirs,
        only_read_instance(home, tmp_path / "cursors") as ours,
        closing(sqlite3.connect(home / "history" / "runs.db")) as kept_open,
    ):
        kept_open.execute("SELECT * FROM runs").fetchall()  # while one reads, the log stays
        before = {run.run_id for run in ours.instance.get_runs()}
        for _ in range(3):
            run_id = baked(theirs)
            assert {run.run_id for run in ours.instance.get_runs()} == before | {run_id}
            history = read_history(ours.instance, run_id)
            assert history is not None
            assert history.finished
            before.add(run_id)
        assert (home / "history" / "runs.db-wal").stat().st_size > 0


def test_a_read_only_instance_is_followed_and_not_exported_again_by_the_next_process(
    settings: Settings, home: Path, client: MlflowClient
) -> None:
    from ledgerline.ledger.cursors import Cursors
    from ledgerline.ledger.observer import Observer
    from ledgerline.testing.written_runs import FakeTarget, clock_to_put_forward

    cursors = settings.home / "observed"
    first, second = FakeTarget(), FakeTarget()
    before = contents(home)
    with clock_to_put_forward() as clock, only_read_instance(home, cursors) as observed:
        observer = Observer(first, observed.cursor_store)
        observer.tick(observed.instance, 1.0)
        clock.forward(3600)
        observer.tick(observed.instance, 1.0)
        assert len(first.exports) == 1
    with only_read_instance(home, cursors) as observed:
        kept = Cursors.load(observed.cursor_store, first.name)
        assert kept is not None
        assert list(kept.active) == []
        Observer(second, observed.cursor_store).tick(observed.instance, 1.0)
    assert second.exports == []
    assert contents(home) == before


def test_a_copy_that_cannot_be_written_is_observed_and_reported(
    settings: Settings, home: Path, client: MlflowClient
) -> None:
    before = contents(home)
    command = f'"{LEDGERLINE}" observe --all --dagster-home "{home}"'
    if os.geteuid() == 0:  # whom permissions do not keep from writing
        mounted = f'mount --bind "{home}" "{home}" && mount -o remount,ro,bind "{home}" && exec {command}'
        arguments = ["unshare", "--mount", "sh", "-c", mounted]
    else:
        for file in home.rglob("*"):
            file.chmod(file.stat().st_mode & ~0o222)
        arguments = ["sh", "-c", command]
    result = subprocess.run(
        arguments,
        env={**os.environ, "LEDGERLINE_HOME": str(settings.home)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if os.geteuid() == 0 and result.returncode == 1 and "permission denied" in result.stderr.lower():
        pytest.skip("nothing can be mounted here")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Nothing is written to that instance: {home}/history cannot be written." in result.stdout
    assert len(runs_in(client, "bakery")) == 1
    assert contents(home) == before
