"""Tests `.env.example` and the reference page of settings, which are written from their declarations."""

from typing import get_args

import pytest

from ledgerline.agent.messages import Thinking
from ledgerline.dagster.agent import SECRET_VARIABLES
from ledgerline.registry.promotion import Mode
from ledgerline.settings import reference
from ledgerline.settings.declaration import Setting
from tests.project import PROJECT_ROOT

BY_NAME = {setting.name: setting for setting in reference.SETTINGS}


@pytest.mark.parametrize(
    ("path", "text"), [(reference.EXAMPLE, reference.example()), (reference.PAGE, reference.page())]
)
def test_the_stored_file_is_written_from_the_classes(path: str, text: str) -> None:
    assert (PROJECT_ROOT / path).read_text() == text, "Run: python -m ledgerline.settings.reference"


@pytest.mark.parametrize("setting", reference.SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_has_a_description_that_is_a_sentence(setting: Setting) -> None:
    assert setting.description[0].isupper()
    assert setting.description.endswith(".")


@pytest.mark.parametrize("setting", reference.SETTINGS, ids=lambda setting: setting.name)
def test_each_number_whose_name_is_a_unit_has_that_unit(setting: Setting) -> None:
    for unit in ("seconds", "megabytes"):
        if setting.name.endswith(f"_{unit.upper()}"):
            assert setting.unit == unit


def test_the_values_of_settings_are_those_of_the_enumerations() -> None:
    assert get_args(BY_NAME["LEDGERLINE_PROMOTION"].field.annotation) == tuple(mode.value for mode in Mode)
    (think, _) = get_args(BY_NAME["LEDGERLINE_LLM_THINK"].field.annotation)
    assert get_args(think) == tuple(Thinking)


def test_every_secret_setting_is_kept_out_of_traces() -> None:
    secrets = {setting.name for setting in reference.SETTINGS if setting.hides == "value"}

    assert secrets - set(SECRET_VARIABLES) == set()
