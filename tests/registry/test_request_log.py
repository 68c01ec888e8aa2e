"""Tests the request log on disk: what is read, which files are opened, and what is deleted."""

import math
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ledgerline.requests.logged_rows import (
    as_logged,
    fixed_schema,
    input_columns,
    inputs_of,
    outputs_of,
    redacted_columns,
)
from ledgerline.requests.request_log import RequestLogError, folder_of, keep_within, read, remove_leftovers
from ledgerline.testing.logged_requests import MODEL, at, write
from tests.project import PROJECT_ROOT

SCORES = {"": [[0.75, 0.25]]}


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_rows_are_read_as_they_were_written_in_order(tmp_path: Path) -> None:
    write(tmp_path, 2, {"carrier": ["UA"], "temp": [39.5]}, SCORES, version=4)
    write(tmp_path, 1, {"carrier": ["AA", "B6"], "temp": [1.5, 2.5]}, {"": [[0.9, 0.1], [0.2, 0.8]]})
    frame = read(tmp_path, MODEL, at(0))
    assert list(frame["request_id"]) == ["request 1", "request 1", "request 2"]
    assert list(frame["row"]) == [0, 1, 0]
    assert list(frame["version"]) == [1, 1, 4]
    assert frame["at"].iloc[2] == at(2)
    assert set(frame["trace_id"]) == {"0af7651916cd43dd8448eb211c80319c"}
    assert input_columns(frame) == ["input.carrier", "input.temp"]
    assert inputs_of(frame).to_dict("list") == {"carrier": ["AA", "B6", "UA"], "temp": [1.5, 2.5, 39.5]}
    assert outputs_of(frame)[""].tolist() == [[0.9, 0.1], [0.2, 0.8], [0.75, 0.25]]


def test_without_requests_there_are_no_rows_but_all_columns(tmp_path: Path) -> None:
    frame = read(tmp_path / "nowhere", MODEL, at(0))
    assert frame.empty
    assert list(frame) == fixed_schema().names
    assert str(frame["at"].dtype) == "datetime64[us, UTC]"
    assert redacted_columns(frame) == []


def test_arrays_without_a_name_are_columns_by_number(tmp_path: Path) -> None:
    write(tmp_path, 1, {"": np.arange(6.0).reshape(2, 3)}, {"": [1.5, 2.5]})
    frame = read(tmp_path, MODEL, at(0))
    assert [name for name in frame if name not in fixed_schema().names] == [
        "input.0",
        "input.1",
        "input.2",
        "output",
    ]
    assert inputs_of(frame).to_numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert outputs_of(frame)[""].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    "outputs",
    [
        {"": np.ones((2, 3))},
        {"": np.ones((2, 1))},
        {"": np.ones(2)},
        {"label": np.array(["a", "b"]), "score": np.ones(2)},
        {"scores": np.ones((2, 2)), "ratio 1.5": np.ones(2)},
        {"0": np.ones(2), "7": np.ones(2)},
    ],
)
def test_a_prediction_is_compared_in_the_form_in_which_it_is_logged(
    tmp_path: Path, outputs: dict[str, np.ndarray]
) -> None:
    write(tmp_path, 1, {"x": [1, 2]}, outputs)
    logged, asked = outputs_of(read(tmp_path, MODEL, at(0))), as_logged(outputs)
    assert logged.keys() == asked.keys()
    for name, values in asked.items():
        assert np.array_equal(logged[name], values)


def test_missing_texts_are_nan(tmp_path: Path) -> None:
    texts = np.array(["AA", math.nan], dtype=object)
    write(tmp_path, 1, {"manufacturer": texts, "temp": [math.nan, 2.5]}, {"": [0.5, 0.5]})
    inputs = inputs_of(read(tmp_path, MODEL, at(0)))
    assert isinstance(inputs["manufacturer"].iloc[1], float)
    assert inputs.isna().to_numpy().tolist() == [[False, True], [True, False]]


def test_only_files_of_the_time_are_opened(tmp_path: Path) -> None:
    for minutes in (1, 2, 3):
        write(tmp_path, minutes, {"x": [minutes]}, {"": [0.5]})
    first, _, last = sorted(folder_of(tmp_path, MODEL).iterdir())
    for file in (first, last):
        file.write_bytes(b"nobody opens this")
    assert list(read(tmp_path, MODEL, at(1.5), at(2.5))["input.x"]) == [2]
    assert list(read(tmp_path, MODEL, at(2), at(2))["input.x"]) == [2]


def test_the_latest_are_read_until_there_are_enough(tmp_path: Path) -> None:
    for minutes in range(5):
        write(tmp_path, minutes, {"x": [minutes, minutes]}, {"": [0.5, 0.5]})
    assert sorted(set(read(tmp_path, MODEL, at(0), enough=3)["input.x"])) == [3, 4]


def test_versions_may_take_other_columns_and_other_types(tmp_path: Path) -> None:
    write(tmp_path, 1, {"carrier": ["AA"], "seats": [180]}, {"": [[0.9, 0.1]]}, version=1)
    write(tmp_path, 2, {"carrier": [7], "temp": [39.5]}, {"label": ["late"]}, version=2)
    frame = read(tmp_path, MODEL, at(0))
    assert list(frame["input.carrier"]) == ["AA", 7]
    assert frame["input.seats"].isna().tolist() == [False, True]
    one, two = (frame[frame["version"] == number] for number in (1, 2))
    assert outputs_of(one).keys() == {""}
    assert outputs_of(two).keys() == {"label"}


def test_a_column_without_a_single_value_takes_the_type_of_others(tmp_path: Path) -> None:
    nothing = np.array([math.nan], dtype=object)
    write(tmp_path, 1, {"carrier": nothing}, {"": [0.5]})
    write(tmp_path, 2, {"carrier": ["AA"]}, {"": [0.5]})
    assert list(read(tmp_path, MODEL, at(0))["input.carrier"]) == [None, "AA"]


def test_redacted_values_are_in_no_file_and_their_columns_are_recorded(tmp_path: Path) -> None:
    texts = np.array(["N14228"], dtype=object)
    path = write(tmp_path, 1, {"tailnum": texts, "temp": [39.5]}, SCORES, redacted=("tailnum", "1"))
    assert b"N14228" not in path.read_bytes()
    assert str(pq.read_schema(path).field("input.tailnum").type) == "string"
    assert str(pq.read_schema(path).field("output.1").type) == "double"
    frame = read(tmp_path, MODEL, at(0))
    assert frame["input.tailnum"].isna().all()
    assert list(frame["output.0"]) == [0.75]
    assert redacted_columns(frame) == ["input.tailnum", "output.1"]
    assert redacted_columns(frame[frame["version"] == 1]) == ["input.tailnum", "output.1"]


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "weiß nicht", "a%2Fb"])
def test_any_name_of_a_model_has_a_separate_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "log"
    path = write(folder, 1, {"x": [1]}, SCORES, model=name)
    assert path.parent.parent == folder
    assert not path.parent.name.startswith(".")
    assert len(read(folder, name, at(0))) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, 1, {"x": list(range(100))}, {"": [0.5] * 100})
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 8] ^= 0xFF
    path.write_bytes({"cut": bytes(content[:-20]), "empty": b""}.get(damage, bytes(content)))
    with pytest.raises(RequestLogError, match=f"^{path} is not a whole Parquet file"):
        read(tmp_path, MODEL, at(0))


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 1, {"x": [1]}, SCORES)
    pd.DataFrame({"somebody": ["else's"]}).to_parquet(path)
    with pytest.raises(RequestLogError, match="is not a file of a request log"):
        read(tmp_path, MODEL, at(0))


def test_a_file_names_the_machine_too_since_processes_of_containers_have_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in ("serving-7d9f-x2", "serving.example"):
        monkeypatch.setattr(socket, "gethostname", lambda machine=machine: machine)
        assert f"_{machine}-{os.getpid()}-" in write(tmp_path, 1, {"x": [1]}, SCORES).name
    assert len(read(tmp_path, MODEL, at(0))) == 2


def test_files_with_other_names_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, 1, {"x": [1]}, SCORES)
    path.with_name("notes.parquet").write_text("mine")
    assert len(read(tmp_path, MODEL, at(0))) == 1
    keep_within(tmp_path, 0)
    assert path.with_name("notes.parquet").exists()


# Retention


def test_the_oldest_files_of_all_models_make_room(tmp_path: Path) -> None:
    for minutes, model in ((1, "b"), (2, "a"), (3, "b"), (4, "a")):
        path = write(tmp_path, minutes, {"x": [1]}, SCORES, model=model)
    room = 2 * path.stat().st_size + 100
    assert keep_within(tmp_path, room) == 2
    assert len(read(tmp_path, "a", at(0))) == len(read(tmp_path, "b", at(0))) == 1
    assert keep_within(tmp_path, room) == 0


def test_the_newest_file_stays_however_little_room_there_is(tmp_path: Path) -> None:
    for minutes in (1, 2, 3):
        write(tmp_path, minutes, {"x": [minutes]}, SCORES)
    assert keep_within(tmp_path, 0) == 2
    assert list(read(tmp_path, MODEL, at(0))["input.x"]) == [3]


# Files of a writer that was killed

KILLED = """
import os, signal, sys
import pyarrow.parquet as pq
from pathlib import Path
from ledgerline.testing.logged_requests import write

def cut_off(rows, file, **options):
    file.write(b"PAR1 half of it")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()

pq.write_table = cut_off
write(Path(sys.argv[1]), 1, {"x": [1]}, {"": [0.5]})
"""


def test_half_a_file_of_a_killed_writer_is_never_read_and_removed_by_the_next(tmp_path: Path) -> None:
    write(tmp_path, 2, {"x": [2]}, SCORES)
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)},
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        assert len(files_in(tmp_path)) == 2
        # It is still running: no other process may remove its file.
        assert remove_leftovers(tmp_path) == 0
        assert list(read(tmp_path, MODEL, at(0))["input.x"]) == [2]
        writer.kill()
    assert len(files_in(tmp_path)) == 2
    assert remove_leftovers(tmp_path) == 1
    assert len(files_in(tmp_path)) == 1


def test_a_failed_write_leaves_no_files(tmp_path: Path) -> None:
    write(tmp_path, 1, {"x": [1]}, SCORES)
    before = files_in(tmp_path)
    place = folder_of(tmp_path, MODEL)
    shutil.rmtree(place)
    place.write_text("in the way")
    with pytest.raises(OSError, match=r"exists|directory"):
        write(tmp_path, 2, {"x": [2]}, SCORES)
    assert files_in(tmp_path) == [MODEL] != before
