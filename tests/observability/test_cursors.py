"""Tests cursors: the position of a projection, which the instance keeps between processes."""

import time
from pathlib import Path

import dagster as dg

from ledgerline.ledger.cursors import OVERLAP_SECONDS, CursorFolder, Cursors
from ledgerline.testing.written_runs import begin


def loaded(instance: dg.DagsterInstance, projection: str = "traces") -> Cursors:
    cursors = Cursors.load(instance.run_storage, projection)
    assert cursors is not None
    return cursors


def test_without_saved_cursors_none_are_loaded(any_instance: dg.DagsterInstance) -> None:
    assert Cursors.load(any_instance.run_storage, "traces") is None


def test_saved_cursors_are_loaded_with_the_runs_in_order(
    any_instance: dg.DagsterInstance,
) -> None:
    cursors = Cursors("traces", updated=1_000.5)
    cursors.active = {"z": "a cursor", "a": None, "m": "another"}
    cursors.move_to_end("z")
    cursors.end("done", 1_000.25)
    cursors.backfills = {"one", "two"}
    cursors.save(any_instance.run_storage)

    again = loaded(any_instance)
    assert again == cursors
    assert list(again.active.items()) == [("a", None), ("m", "another"), ("z", "a cursor")]
    assert (again.updated, again.ended, again.backfills) == (1_000.5, {"done": 1_000.25}, {"one", "two"})


def test_each_projection_has_separate_cursors(any_instance: dg.DagsterInstance) -> None:
    Cursors("traces", updated=1.0).save(any_instance.run_storage)
    assert Cursors.load(any_instance.run_storage, "mlflow") is None
    Cursors("mlflow", updated=2.0).save(any_instance.run_storage)
    assert (loaded(any_instance).updated, loaded(any_instance, "mlflow").updated) == (1.0, 2.0)


def test_nothing_is_written_when_nothing_has_changed(any_instance: dg.DagsterInstance) -> None:
    Cursors("traces", updated=1.0).save(any_instance.run_storage)
    idle, busy = loaded(any_instance), loaded(any_instance)
    busy.active["a run"] = None
    busy.save(any_instance.run_storage)
    idle.save(any_instance.run_storage)  # and so does not undo what the other one wrote
    assert list(loaded(any_instance).active) == ["a run"]


def test_the_later_of_two_concurrent_writes_is_kept_as_a_whole(any_instance: dg.DagsterInstance) -> None:
    Cursors("traces", updated=1.0).save(any_instance.run_storage)
    one, other = loaded(any_instance), loaded(any_instance)
    one.active["a run"] = None
    one.advance(5.0)
    one.save(any_instance.run_storage)
    other.advance(4.0)
    other.save(any_instance.run_storage)
    assert loaded(any_instance) == other
    assert (loaded(any_instance).updated, loaded(any_instance).active) == (4.0, {})


def test_runs_that_are_done_with_are_remembered_for_as_long_as_the_search_finds_them(
    any_instance: dg.DagsterInstance,
) -> None:
    cursors = Cursors("traces", updated=1_000.0)
    cursors.end("old", 1_000.0 - OVERLAP_SECONDS)
    cursors.end("recent", 1_001.0 - OVERLAP_SECONDS)
    cursors.save(any_instance.run_storage)
    assert loaded(any_instance).ended == {"recent": 1_001.0 - OVERLAP_SECONDS}


def test_the_search_never_goes_back(any_instance: dg.DagsterInstance) -> None:
    cursors = Cursors("traces", updated=1_000.0)
    cursors.advance(2_000.0)
    cursors.advance(1_500.0)
    assert cursors.updated == 2_000.0


def test_a_run_is_new_once_and_again_after_a_change(any_instance: dg.DagsterInstance) -> None:
    cursors = Cursors("traces", updated=time.time())
    run = begin(any_instance)
    assert cursors.begin_if_new(run.record)
    assert not cursors.begin_if_new(run.record)
    cursors.end(run.run_id, run.record.update_timestamp.timestamp())
    assert not cursors.begin_if_new(run.record)
    any_instance.add_run_tags(run.run_id, {"looked at": "by somebody"})
    assert cursors.begin_if_new(run.record)
    assert cursors.active == {run.run_id: None}


def test_cursors_beside_an_instance_are_kept_between_processes_for_each_projection(
    tmp_path: Path,
) -> None:
    store = CursorFolder(tmp_path / "not made yet")
    assert Cursors.load(store, "traces") is None
    assert not store.folder.exists()
    kept = Cursors("traces", updated=1_000.5, active={"b": "a cursor", "a": None}, backfills={"one"})
    kept.save(store)
    Cursors("mlflow", updated=2.0).save(store)
    again = Cursors.load(CursorFolder(tmp_path / "not made yet"), "traces")
    assert again == kept
    assert again is not None
    assert list(again.active) == ["b", "a"]
    assert len(list(store.folder.iterdir())) == 2
