"""Tests file names of keys: unique, short enough, in their folder, and readable back."""

import random

import pytest

from ledgerline.dagster.storage.file_names import (
    MAX_NAME_BYTES,
    WHOLE,
    folder_of,
    is_shortened,
    key_of,
    name_of,
)

PLAIN = [
    "2013-01-01",
    "2013-01-01-00:00",
    "north|2013-01-01",
    "EWR",
    "50%",
    "a%2Fb",
    "a b",
    "Zürich",
    "x.csv",
]
ODD = {
    "a/x": "a~2Fx",
    "/etc/passwd": "~2Fetc~2Fpasswd",
    "../../x": "~2E.~2F..~2Fx",
    "..": "~2E~2E",
    ".": "~2E",
    ".writing-1": "~2Ewriting-1",
    "a~2Fx": "a~7E2Fx",
    "~": "~7E",
    WHOLE: "~7Ewhole",
    "": "~",
    "x.": "x~2E",
    "x ": "x~20",
    "a\\b": "a~5Cb",
    "why?": "why~3F",
    "\x01\x1b\x7f": "~01~1B~7F",
    "CON": "~43ON",
    "nul.txt": "~6Eul.txt",
}


@pytest.mark.parametrize("key", PLAIN)
def test_a_plain_key_is_its_own_name(key: str) -> None:
    assert name_of(key) == key == key_of(key)


@pytest.mark.parametrize(("key", "name"), ODD.items())
def test_characters_with_a_meaning_in_file_systems_are_escaped(key: str, name: str) -> None:
    assert name_of(key) == name
    assert key_of(name) == key


def test_no_two_keys_have_one_name() -> None:
    made = random.Random(7)  # noqa: S311
    alphabet = "aA~/.\\ %2F7E0CON\x01é\u0085\ud83d|"
    keys = {"".join(made.choices(alphabet, k=made.randint(0, 7))) for _ in range(50_000)}

    assert len({name_of(key) for key in keys}) == len(keys)
    assert all(key_of(name_of(key)) == key for key in keys)


@pytest.mark.parametrize("key", ["x" * 300, "x" * 1200, "/" * 100, "é" * 200, "名" * 400, "~" * 90])
def test_a_long_key_has_a_name_that_file_systems_take(key: str) -> None:
    name = name_of(key)

    assert len(name.encode()) <= MAX_NAME_BYTES
    assert is_shortened(name)
    assert key_of(name) is None
    assert name_of(key + "x") != name
    assert name_of(name) != name  # a key that is similar


def test_the_longest_key_that_is_its_own_name_is_not_shortened() -> None:
    assert name_of("x" * MAX_NAME_BYTES) == "x" * MAX_NAME_BYTES
    assert is_shortened(name_of("x" * (MAX_NAME_BYTES + 1)))


@pytest.mark.parametrize("name", ["~backup", "a~2fx", "~4", ".x", "~61", "~FF", "x.", WHOLE])
def test_a_name_that_no_key_has_is_not_read_as_one(name: str) -> None:
    assert key_of(name) is None


def test_a_folder_is_never_named_like_a_file_of_the_storage() -> None:
    assert folder_of("a") == "a"
    assert folder_of("a.parquet") == "a~2Eparquet"
    assert folder_of("a.JSON") == "a~2EJSON"
