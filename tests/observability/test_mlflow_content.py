"""Tests the content of an MLflow run: valid names, metric points, params, datasets and a note."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledgerline.cleaning.texts import REDACTED
from ledgerline.ledger.history import (
    COMPUTE,
    START_WORKER,
    Attempt,
    Error,
    Materialisation,
    Outcome,
    Phase,
    Run,
    RunHistory,
    RunStatus,
)
from ledgerline.ledger.links import Links
from ledgerline.ledger.reads import Basis, Read, Source
from ledgerline.mlflow_runs.datasets import run_datasets
from ledgerline.mlflow_runs.inputs import run_params
from ledgerline.mlflow_runs.metrics import entity_name, run_metrics
from ledgerline.mlflow_runs.tags import root_cause, run_tags
from ledgerline.testing.recordings import Recording, Recordings

RUN = Run("11111111-2222-4333-8444-555555555555", "train", created=1_000.0)
STEP = Attempt("fit", "fit", 1, started=1_002.0, ended=1_005.5, outcome=Outcome.SUCCESS)
HISTORY = RunHistory(RUN, RunStatus.SUCCESS, started=1_001.0, ended=1_006.0, attempts=(STEP,))
WRITTEN = Materialisation(
    asset="tables/flights",
    partition=None,
    data_version="v1",
    code_version=None,
    rows=None,
    content_sha256=None,
    schema=None,
    column_lineage=None,
    reads=(),
    description=None,
    time=1_005.0,
)


def writing(*materialisations: Materialisation) -> RunHistory:
    return replace(HISTORY, attempts=(replace(STEP, materialisations=materialisations),))


def points(now: RunHistory, before: RunHistory | None = None) -> list[tuple[str, float, int, int]]:
    return [(point.key, point.value, point.timestamp, point.step) for point in run_metrics(now, before)]


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("step_seconds/fit", "step_seconds/fit"),
        ("step_seconds/graph.double[2]", "step_seconds/graph.double:2"),
        ("rows/tables/flights", "rows/tables/flights"),
        ("rows/flüge", "rows/flüge"),
    ],
)
def test_names_of_steps_and_assets_stay_readable(name: str, expected: str):
    assert entity_name(name) == expected


@settings(deadline=None)  # the first time imports MLflow
@given(st.text(min_size=1, max_size=400))
@example("rows/a//b")
@example("rows/../a")
@example("rows/./a/")
@example("rows/" + "long" * 100)
@example("rows/a@b#c$d")
@example("/")
@example("..")
def test_mlflow_accepts_every_name(name: str):
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    _validate_metric_name(entity_name(name))
    _validate_param(entity_name(name), "value")


@given(st.lists(st.text("ab[]:/.@", min_size=1, max_size=6), unique=True, max_size=30))
@example(["a[b]", "a:b", "a@b", "a#b", "a_b", "a//b", "a/_/b"])
def test_no_two_names_become_the_same(names: list[str]):
    assert len({entity_name(name) for name in names}) == len(names)


# Metrics


def test_a_step_has_its_seconds_by_phase_at_its_end():
    phases = (Phase(START_WORKER, 1_002.0, 1_002.5), Phase("load x", 1_002.5, 1_003.0))
    phases += (Phase("load y", 1_003.0, 1_003.25), Phase(COMPUTE, 1_003.25, 1_005.5))
    retried = replace(STEP, number=2, phases=phases)

    assert points(replace(HISTORY, attempts=(retried,))) == [
        ("launch_seconds", 1.0, 1_001_000, 0),
        ("step_seconds/fit", 3.5, 1_005_500, 2),
        ("start_seconds/fit", 0.5, 1_005_500, 2),
        ("load_seconds/fit", 0.75, 1_005_500, 2),
        ("compute_seconds/fit", 2.25, 1_005_500, 2),
        ("run_seconds", 5.0, 1_006_000, 0),
    ]


def test_rows_are_those_of_all_partitions_that_a_step_wrote():
    january, february = replace(WRITTEN, partition="1", rows=3), replace(WRITTEN, partition="2", rows=4)

    assert ("rows/tables/flights", 7.0, 1_005_500, 1) in points(writing(january, february))


def test_only_what_is_new_is_returned():
    running = replace(STEP, step="evaluate", ended=None, outcome=Outcome.RUNNING)
    before = replace(HISTORY, status=RunStatus.STARTED, ended=None, attempts=(STEP, running))
    now = replace(before, attempts=(STEP, replace(running, ended=1_005.9, outcome=Outcome.SUCCESS)))

    assert points(before, before) == []
    assert [name for name, *_ in points(now, before)] == ["step_seconds/evaluate"]


def test_the_time_in_a_queue_is_a_metric(recorded: Recordings):
    names = [name for name, *_ in points(recorded["queued"].history)]

    assert names[:2] == ["queued_seconds", "launch_seconds"]


def test_the_points_of_real_runs_are_each_there_once(recording: Recording):
    metrics_now = points(recording.history)

    assert len(metrics_now) == len(set(metrics_now))
    assert all(value >= 0 for _, value, _, _ in metrics_now)


# Params


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {}),
        ({"ops": {}}, {}),
        ({"a": {"b": [], "c": [1, None]}}, {"a.b": "[]", "a.c": "[1, null]"}),
        ({"a": {"b": "x"}, "a.b": "y"}, {"a.b": "x"}),
        ({"db": {"password": {"env": "DB_PASSWORD"}}}, {"db.password.env": "DB_PASSWORD"}),
        ({"db": {"password": "x", "tokens": ["x"]}}, {"db.password": REDACTED, "db.tokens": REDACTED}),
        (
            {"secrets": {"first": "x"}, "headers": {"Authorization": "x", "Accept": "y"}},
            {"secrets.first": REDACTED, "headers.Authorization": REDACTED, "headers.Accept": "y"},
        ),
        ({"sql": "ALTER USER me PASSWORD 'x'"}, {"sql": f"ALTER USER me PASSWORD '{REDACTED}'"}),
        ({"a\x00": "\udc80"}, {"a_x00-3f8f62ac": "\\udc80"}),
        ({"llm": {"max_tokens": 10, "tokenizer": "bpe"}}, {"llm.max_tokens": "10", "llm.tokenizer": "bpe"}),
        ({"urls": ["https://me:x@host/"]}, {"urls": f'["https://me:{REDACTED}@host/"]'}),
    ],
)
def test_config_is_flat_params(config: Mapping[str, Any], expected: Mapping[str, str]):
    params, left_out = run_params(config)

    assert {param.key: param.value for param in params} == expected
    assert left_out == 0


# Datasets


def test_a_version_that_was_read_twice_is_one_input():
    source = Source(None, "p" * 64, "run of planes", 7)
    read = Read("tables/planes", "p" * 64, 7, (source,), Basis.NAMED)
    january = replace(WRITTEN, partition="1", reads=(read,))
    february = replace(WRITTEN, partition="2", reads=(read,))

    recorded = run_datasets(writing(january, february))

    tags = [{tag.key: tag.value for tag in dataset.tags} for dataset in recorded]
    assert [dataset.dataset.name for dataset in recorded] == ["tables/planes", "tables/flights"]
    assert [each["data_version"] for each in tags] == ["p" * 64, "v1"]
    assert [each["written_by"] for each in tags] == ["run of planes", RUN.run_id]


def test_an_asset_that_the_run_writes_later_is_not_an_input():
    reader = replace(WRITTEN, reads=(Read("tables/planes", "p"),))
    history = replace(writing(reader), planned=("tables/planes", "tables/flights"))

    assert [dataset.dataset.name for dataset in run_datasets(history)] == ["tables/flights"]


def test_names_that_are_too_long_for_mlflow_are_kept_apart():
    names = ["a" * 499 + end for end in ("bc", "bd")]
    recorded = run_datasets(writing(*(replace(WRITTEN, asset=name) for name in names)))

    shown = {dataset.dataset.name for dataset in recorded}
    assert (len(shown), {len(name) for name in shown}) == (2, {500})


def test_versions_of_very_many_runs_are_one_input():
    sources = tuple(
        Source(f"{number:03}", f"v{number}", f"run {number}", number, rows=2) for number in range(300)
    )
    reader = replace(WRITTEN, reads=(Read("days", "v299", 299, sources, Basis.MAPPING),))

    days, _ = run_datasets(writing(reader))

    assert json.loads(days.dataset.profile or "") == {"num_rows": 600, "num_partitions": 300}
    (caveat,) = [tag.value for tag in days.tags if tag.key == "caveat"]
    assert caveat.startswith("300 versions, written by as many runs; SHA-256 of them ")


def test_assets_without_a_data_version_are_not_datasets():
    assert run_datasets(writing(replace(WRITTEN, data_version=None))) == []


# Tags


def test_the_root_cause_is_that_of_the_first_step_that_failed():
    cause = Error("builtins.KeyError", "'tailnum'", "")
    error = Error("builtins.RuntimeError", "no features", "", causes=(cause,))
    retried = replace(STEP, outcome=Outcome.RETRY, error=Error("x.Retry", "", ""))
    failed = replace(STEP, number=2, outcome=Outcome.FAILURE, error=error)
    history = replace(HISTORY, status=RunStatus.FAILURE, attempts=(retried, failed))

    assert root_cause(history) == "fit: builtins.KeyError: 'tailnum'"
    assert root_cause(replace(history, status=RunStatus.SUCCESS)) is None


def test_the_note_is_a_table_that_names_cannot_break():
    odd = replace(STEP, step="fit|*x*<b>")
    history = replace(HISTORY, attempts=(odd,) * 50)

    note = run_tags(history, Links(dagster="http://dagster"), "1")["mlflow.note.content"]

    lines = note.splitlines()
    assert lines[0] == f"Dagster run [{RUN.run_id}](http://dagster/runs/{RUN.run_id}) · SUCCESS · 5.0 s"
    assert lines[2:5] == [
        "| step | attempt | outcome | seconds |",
        "| --- | --- | --- | --- |",
        r"| fit\|\*x\*\<b\> | 1 | success | 3.50 |",
    ]
    assert lines[-1] == "and 10 more"
