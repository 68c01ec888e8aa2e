"""Single variables of the environment: what they are read as, and how a wrong one is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.settings import library_defaults, variables

NAME = "LEDGERLINE_THING"
UNSET: list[Mapping[str, str]] = [{}, {NAME: ""}]


@pytest.mark.parametrize("unset", UNSET)
def test_a_variable_that_is_not_set_or_empty_has_its_default(unset: Mapping[str, str]) -> None:
    assert variables.choice(unset, NAME, ("first", "second")) == "first"
    assert variables.address(unset, NAME) is None
    assert variables.whole_number(unset, NAME, 7) == 7
    assert variables.number(unset, NAME, 0.5, 1) == 0.5
    assert variables.words(unset, NAME) == ()
    assert variables.words(unset, NAME, "one, two") == ("one", "two")


def test_folders_become_absolute_and_addresses_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert variables.place("tables") == str(tmp_path / "tables")
    assert variables.place("/srv/tables") == "/srv/tables"
    assert variables.place("s3://bucket/tables/") == "s3://bucket/tables/"
    assert variables.place(None) is None
    assert variables.place("") == ""


@pytest.mark.parametrize("value", ["Second", "third", " first", "first,second"])
def test_a_word_that_is_not_among_the_allowed_is_told_them(value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{NAME} is '{value}'; set it to one of: first, second\.$"):
        variables.choice({NAME: value}, NAME, ("first", "second"))


@pytest.mark.parametrize("value", ["http://127.0.0.1:5000", "https://somebody:s3cret@host/path"])
def test_an_address_is_one_of_http(value: str) -> None:
    assert variables.address({NAME: value}, NAME) == value


@pytest.mark.parametrize("value", ["host:5000", "ftp://host", "http:///path", "http:// x", "s3cret"])
def test_what_is_no_address_is_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match=f"^{NAME} is no address; set it to one like ") as error:
        variables.address({NAME: value}, NAME)

    assert value not in str(error.value)


@given(st.integers(0, 10**30))
def test_whole_numbers_are_read(number: int) -> None:
    assert variables.whole_number({NAME: str(number)}, NAME, 7) == number


@pytest.mark.parametrize("value", ["-1", "+1", "1.0", "1e3", " 1", "one", "²", "0x10", "1_000"])
def test_what_is_no_whole_number_is_told_the_default(value: str) -> None:
    with pytest.raises(ValueError, match=f"^{NAME} is .*; set it to a whole number \\(default 7\\)\\.$"):
        variables.whole_number({NAME: value}, NAME, 7)


@given(st.floats(0, 1e6))
def test_numbers_up_to_the_highest_are_read(number: float) -> None:
    assert variables.number({NAME: str(number)}, NAME, 1, 1e6) == number


@pytest.mark.parametrize("value", ["-0.1", "10.1", "nan", "inf", "-inf", "1s", "one", "1,5"])
def test_what_is_no_number_or_too_high_is_told_the_range(value: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{NAME} is '{value}'; set it to a number from 0 to 10 \(default 2\)"
    ):
        variables.number({NAME: value}, NAME, 2, 10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("one", ("one",)), (" one ,two,, three,", ("one", "two", "three")), (",", ()), ("a b", ("a b",))],
)
def test_words_have_commas_between_them(value: str, expected: tuple[str, ...]) -> None:
    assert variables.words({NAME: value}, NAME, "default") == expected


def test_all_local_state_is_in_one_folder(tmp_path: Path) -> None:
    home = variables.home({}, tmp_path)

    assert home == tmp_path / ".ledgerline"
    assert variables.home({"LEDGERLINE_HOME": str(tmp_path / "state")}, tmp_path) == tmp_path / "state"
    assert variables.tracking_uri({}, home) == f"sqlite:///{home}/mlflow.db"
    assert variables.tracking_uri({"MLFLOW_TRACKING_URI": "http://host"}, home) == "http://host"
    assert variables.request_log({}, home) == str(home / "serving" / "requests")


@pytest.mark.parametrize("name", ["what?", "#1", "100%"])
def test_a_folder_that_no_database_address_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^LEDGERLINE_HOME is .*; choose a folder without \?, # and %"):
        variables.home({"LEDGERLINE_HOME": str(tmp_path / name)}, tmp_path)


def test_requests_are_logged_in_a_folder_or_not_at_all(tmp_path: Path) -> None:
    def log(value: str) -> str | None:
        return variables.request_log({"LEDGERLINE_REQUEST_LOG": value}, tmp_path)

    assert log(str(tmp_path / "log")) == str(tmp_path / "log")
    assert log("off") is None
    with pytest.raises(ValueError, match=r"^LEDGERLINE_REQUEST_LOG is 's3://bucket/log'; set it to a folder"):
        log("s3://bucket/log")


# What libraries are told


def test_libraries_are_told_what_nobody_else_told_them() -> None:
    environment = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "7", "MLFLOW_DISABLE_TELEMETRY": ""}

    library_defaults.set_in(environment)

    assert environment == library_defaults.MLFLOW_DEFAULTS | {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
        "MLFLOW_DISABLE_TELEMETRY": "",
    }


@pytest.mark.parametrize("value", ["many", "-1", "1.5"])
def test_a_limit_that_opentelemetry_could_not_read_is_taken_away(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"OTEL_SPAN_EVENT_COUNT_LIMIT": value, "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": " 8 "}

    library_defaults.set_in(environment)

    assert "OTEL_SPAN_EVENT_COUNT_LIMIT" not in environment
    assert environment["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"] == " 8 "
    assert [record.getMessage() for record in caplog.records] == [
        f"OTEL_SPAN_EVENT_COUNT_LIMIT is '{value}', no whole number; it is passed over."
    ]
