"""Tests fields that declare settings: how their variables are read, and the errors for wrong values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.settings.declaration import (
    Address,
    DeclaredSettings,
    Place,
    PlaceOrOff,
    SettingsError,
    Whole,
    Words,
    WordSet,
    setting,
    settings_of,
)


class IngredientSettings(DeclaredSettings):
    """Ingredients."""

    names: Words = setting("OVEN_INGREDIENTS", "Ingredients.", ("flour", "water"))
    allergens: WordSet = setting("OVEN_ALLERGENS", "Ingredients to avoid.", frozenset())


class OvenSettings(DeclaredSettings):
    """Ovens."""

    kind: Literal["gas", "wood"] = setting("OVEN_KIND", "Kind of the oven.", "gas")
    loaves: Whole = setting("OVEN_LOAVES", "Loaves at once.", 7, ge=1)
    share: float = setting("OVEN_SHARE", "Share of rye.", 0.5, ge=0, le=10)
    page: Address | None = setting("OVEN_PAGE", "Page of the oven.")
    folder: Place = setting("OVEN_FOLDER", "Folder of recipes.", lambda data: f"/srv/{data['kind']}")
    log: PlaceOrOff = setting("OVEN_LOG", "Log; off for none.", "off")
    key: Address | None = setting("OVEN_KEY", "Where the key is.", hides="value")
    ingredients: IngredientSettings


def read(**variables: str) -> OvenSettings:
    return OvenSettings.from_environment(variables)


def problem_of(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(**variables)
    return caught.value.problem


@pytest.mark.parametrize(
    "unset",
    [{}, dict.fromkeys(("OVEN_KIND", "OVEN_LOAVES", "OVEN_PAGE", "OVEN_LOG", "OVEN_INGREDIENTS"), "")],
)
def test_a_variable_that_is_not_set_or_empty_has_its_default(unset: Mapping[str, str]) -> None:
    settings = read(**unset)

    assert (settings.kind, settings.loaves, settings.share, settings.page) == ("gas", 7, 0.5, None)
    assert (settings.folder, settings.log) == ("/srv/gas", "off")
    assert (settings.ingredients.names, settings.ingredients.allergens) == (("flour", "water"), frozenset())


def test_variables_set_fields_and_the_fields_of_fields() -> None:
    settings = read(OVEN_KIND="wood", OVEN_LOAVES="12", OVEN_SHARE="0.25", OVEN_INGREDIENTS=" rye ,salt,, ")

    assert (settings.kind, settings.loaves, settings.share) == ("wood", 12, 0.25)
    assert settings.folder == "/srv/wood"
    assert settings.ingredients.names == ("rye", "salt")


def test_options_of_a_command_win_over_variables() -> None:
    settings = OvenSettings.from_environment({"OVEN_KIND": "wood"}, options={"OVEN_KIND": "gas"})

    assert settings.kind == "gas"


def test_folders_become_absolute_and_urls_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert read(OVEN_FOLDER="recipes").folder == str(tmp_path / "recipes")
    assert read(OVEN_FOLDER="/srv/recipes").folder == "/srv/recipes"
    assert read(OVEN_FOLDER="s3://bucket/recipes/").folder == "s3://bucket/recipes/"
    assert read(OVEN_LOG="log").log == str(tmp_path / "log")
    assert read(OVEN_LOG="off").log == "off"


@pytest.mark.parametrize("value", ["Gas", "coal", " gas", "gas,wood"])
def test_a_word_that_is_not_allowed_is_named_with_those_that_are(value: str) -> None:
    assert (
        problem_of(OVEN_KIND=value) == f"OVEN_KIND is '{value}'; set it to one of: gas, wood (default gas)."
    )


@pytest.mark.parametrize("value", ["http://127.0.0.1:5000", "https://somebody:s3cret@host/path"])
def test_an_address_has_the_scheme_http_or_https(value: str) -> None:
    assert read(OVEN_PAGE=value).page == value


@pytest.mark.parametrize("value", ["host:5000", "ftp://host", "http:///path", "http:// x", "s3cret"])
def test_a_hidden_value_is_not_in_the_error(value: str) -> None:
    problem = problem_of(OVEN_KEY=value)

    assert problem == "OVEN_KEY cannot be used; set it to an address like http://127.0.0.1:5000."


def test_an_error_contains_no_hidden_value() -> None:
    with pytest.raises(SettingsError) as caught:
        read(OVEN_KEY="s3cret")

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "s3cret" not in repr(caught.value)


@given(st.integers(1, 10**30))
def test_whole_numbers_are_read(number: int) -> None:
    assert read(OVEN_LOAVES=str(number)).loaves == number


@pytest.mark.parametrize("value", ["0", "-1", "+1", "1.0", "1e3", " 1", "one", "²", "0x10", "1_000"])
def test_another_text_than_a_whole_number_is_named_with_the_bounds_and_the_default(value: str) -> None:
    problem = problem_of(OVEN_LOAVES=value)

    assert problem == f"OVEN_LOAVES is {value!r}; set it to a whole number from 1 on (default 7)."


@given(st.floats(0, 10))
def test_numbers_within_the_bounds_are_read(number: float) -> None:
    assert read(OVEN_SHARE=str(number)).share == number


@pytest.mark.parametrize("value", ["-0.1", "10.1", "nan", "inf", "-inf", "1s", "one", "1,5"])
def test_another_text_than_a_number_within_the_bounds_is_named_with_them(value: str) -> None:
    problem = problem_of(OVEN_SHARE=value)

    assert problem == f"OVEN_SHARE is '{value}'; set it to a number from 0 to 10 (default 0.5)."


def test_one_error_names_all_wrong_variables() -> None:
    problem = problem_of(OVEN_KIND="coal", OVEN_LOAVES="many", OVEN_KEY="s3cret")

    assert [line.split(" ")[0] for line in problem.splitlines()] == ["OVEN_KIND", "OVEN_LOAVES", "OVEN_KEY"]


def test_each_setting_is_listed_once_with_the_class_that_declares_it() -> None:
    listed = {each.name: (each.owner, each.default) for each in settings_of(OvenSettings)}

    assert listed["OVEN_KIND"] == (OvenSettings, "gas")
    assert listed["OVEN_INGREDIENTS"] == (IngredientSettings, "flour,water")
    assert len(listed) == 9


def test_a_hidden_value_is_not_in_the_representation() -> None:
    assert "s3cret" not in repr(read(OVEN_KEY="http://s3cret"))
