"""Tests the addresses of the pages of a run: in Dagster, in MLflow, and of its trace."""

from urllib.parse import parse_qs, urlsplit

import pytest

from ledgerline.ledger.links import JAEGER_TRACE, MLFLOW_TRACE, Links

RUN_ID = "4b3ff23c-5a4e-4b39-8f3c-8b5f8f0f2a77"
TRACE_ID = "4b3ff23c5a4e4b398f3c8b5f8f0f2a77"
EVERYTHING = Links("http://dagster.example", "http://mlflow.example", "http://jaeger.example" + JAEGER_TRACE)


def test_a_run_has_a_page_in_dagster() -> None:
    assert EVERYTHING.run_page(RUN_ID) == f"http://dagster.example/runs/{RUN_ID}"


@pytest.mark.parametrize(
    ("template", "page"),
    [
        ("http://jaeger.example" + JAEGER_TRACE, f"http://jaeger.example/trace/{TRACE_ID}"),
        (
            "http://mlflow.example" + MLFLOW_TRACE,
            f"http://mlflow.example/#/experiments/7/traces/tr-{TRACE_ID}",
        ),
        (
            "http://grafana.example/explore?trace={trace_id}",
            f"http://grafana.example/explore?trace={TRACE_ID}",
        ),
        ("http://traces.example", "http://traces.example"),
    ],
)
def test_a_trace_has_a_page(template: str, page: str) -> None:
    assert Links(trace=template).trace_page(RUN_ID, "7") == page


def test_a_trace_of_a_custom_run_id_has_a_page_too() -> None:
    page = EVERYTHING.trace_page("nightly", "7")
    assert page is not None
    trace_id = page.rsplit("/", 1)[1]
    assert len(trace_id) == 32
    assert int(trace_id, 16)


def test_a_run_has_a_page_in_mlflow() -> None:
    page = EVERYTHING.mlflow_run_page("7", "abc")
    assert page == "http://mlflow.example/#/experiments/7/runs/abc"


def test_all_that_mlflow_has_of_a_run_is_found_by_its_tag() -> None:
    page = EVERYTHING.mlflow_runs_page("7", RUN_ID)
    assert page is not None
    path, _, query = urlsplit(page).fragment.partition("?")
    assert path == "/experiments/7/runs"
    assert parse_qs(query) == {"searchFilter": [f"tags.`dagster.run_id` = '{RUN_ID}'"]}


def test_without_a_template_there_is_no_page() -> None:
    nowhere = Links()
    assert nowhere.run_page(RUN_ID) is None
    assert nowhere.trace_page(RUN_ID, "7") is None
    assert nowhere.mlflow_run_page("7", "abc") is None
    assert nowhere.mlflow_runs_page("7", RUN_ID) is None
