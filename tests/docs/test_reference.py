"""Tests that the reference pages name what the code has, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from benchmarks.scenarios import SCENARIOS
from checks import command_line
from ledgerline.agent import conventions
from ledgerline.mlflow_runs import metrics as mlflow_metrics
from ledgerline.mlflow_runs import tags
from ledgerline.serving.app import application
from ledgerline.serving.metrics import Metrics
from ledgerline.serving.service import service_for
from ledgerline.traces import attributes
from tests.serving.conftest import serving_settings
from tests.test_advice import texts_of

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
# Files that users make, and a metadata key.
NOT_IN_THE_REPOSITORY = ("docker/.env", "docker/settings.env", "ledgerline/summary")
CODE = re.compile(r"`([^`\n]+)`")


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def names_in(text: str) -> set[str]:
    """Return what stands in backticks, with `<asset>` and the like as {}."""
    return {re.sub(r"<[^>]*>(/<[^>]*>)*", "{}", name) for name in CODE.findall(text)}


def strings_of(module: object, *beginnings: str) -> set[str]:
    """Return the values of a module's constants that begin as attributes or tags do."""
    values = {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return {value for value in values if value.startswith(beginnings)}


def test_the_command_line_page_equals_the_help_texts() -> None:
    assert page("command-line.md") == command_line.page(), "Run `python -m checks.command_line`."


def test_the_page_of_spans_names_each_attribute() -> None:
    beginnings = ("dagster.", "ledgerline.", "ml.", "gen_ai.", "mlflow.span", "process.", "http.", "server.")
    in_code = strings_of(attributes, *beginnings) | strings_of(conventions, *beginnings)
    assert len(in_code) > 90
    on_page = names_in(page("span-attributes.md"))
    assert in_code - on_page == set()
    known = in_code | {"dagster.StepInterrupted", "dagster.StepLost"}
    assert {
        name for name in on_page if re.fullmatch(r"(dagster|ledgerline|ml|gen_ai)\.[\w.{}]+", name)
    } - known == set()


def test_the_page_of_metrics_names_each_metric_of_serving() -> None:
    in_code = set(re.findall(r"^# TYPE (ledgerline_\w+) ", Metrics().text().decode(), re.MULTILINE))
    in_code = {name for name in in_code if not name.endswith("_created")}
    assert len(in_code) > 15
    assert {name for name in names_in(page("metrics.md")) if name.startswith("ledgerline_")} == in_code


def test_the_page_of_metrics_names_each_metric_and_tag_of_a_run() -> None:
    on_page = names_in(page("metrics.md"))
    phases = set(mlflow_metrics.PHASE_SECONDS.values())
    for name in phases | {mlflow_metrics.STEP_SECONDS, mlflow_metrics.HOOK_SECONDS}:
        assert f"{name}/{{}}" in on_page
    for name in (mlflow_metrics.ROWS, mlflow_metrics.METADATA, mlflow_metrics.CHECK_METADATA):
        assert f"{name}/{{}}" in on_page
    single = {mlflow_metrics.RUN_SECONDS, mlflow_metrics.HOOKS_FAILED}
    single |= {mlflow_metrics.CHECKS_PASSED, mlflow_metrics.CHECKS_FAILED}
    assert single <= on_page
    in_code = strings_of(tags, "dagster.", "ledgerline.", "trace_") | {tags.ERROR}
    assert in_code - on_page == set()
    assert {name for name in on_page if re.match(r"(dagster|ledgerline)\.", name)} - in_code == set()


@pytest.fixture
def endpoints(tmp_path: Path) -> set[str]:
    """Return the endpoints of the application, without HEAD."""
    settings = serving_settings(tmp_path, "http://127.0.0.1:5000", LEDGERLINE_WEBHOOK_SECRET="s" * 32)
    app = application(service_for(settings))
    return {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
        if method != "HEAD" and not route.path.startswith("/docs/")
    }


def test_the_page_of_http_names_each_endpoint(endpoints: set[str]) -> None:
    assert len(endpoints) > 15
    assert {name for name in names_in(page("http.md")) if re.match("(GET|POST) /", name)} == endpoints


def test_the_messages_on_the_page_of_errors_are_those_of_the_code() -> None:
    messages = re.findall(r"^\| `([^`]+)` \|", page("errors.md"), re.MULTILINE)
    assert len(messages) > 5
    modules = [*ROOT.glob("ledgerline/**/*.py"), *ROOT.glob("assets/*.py")]
    texts = [text for module in modules for text in texts_of(module)]
    patterns = {
        message: re.compile(".*".join(re.escape(part) for part in message.split("...")), re.DOTALL)
        for message in messages
    }
    assert [
        message for message in messages if not any(patterns[message].search(text) for text in texts)
    ] == []


def test_the_benchmarks_that_pages_name_exist() -> None:
    named = re.findall(
        r"python -m benchmarks (\w+)(?: --scenario (\w+))?`", (ROOT / "docs" / "measurements.md").read_text()
    )
    assert len(named) > 8
    known = {(scenario.area, scenario.name) for scenario in SCENARIOS}
    known |= {(scenario.area, "") for scenario in SCENARIOS}
    assert set(named) - known == set()


def paths_in(text: str) -> Iterator[str]:
    for name in CODE.findall(text):
        if re.fullmatch(
            r"(ledgerline|assets|pipelines|resources|tests|docker|checks|benchmarks|findings)/[\w./-]*", name
        ):
            yield name


def test_the_files_that_pages_name_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    named = [
        (path.name, name)
        for path in pages
        if path.name not in ("CHANGELOG.md", "tutorial.md")
        for name in paths_in(path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 60
    assert [
        (path, name)
        for path, name in named
        if not (ROOT / name).exists() and name not in NOT_IN_THE_REPOSITORY
    ] == []
