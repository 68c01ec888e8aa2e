"""Tests a real SearXNG server, if there is one."""

import os

import pytest

from ledgerline.agent.recording import Recorder
from ledgerline.agent.search_tool import SearchTool

SECONDS = 30.0

pytestmark = pytest.mark.searxng


@pytest.fixture(scope="module")
def url() -> str:
    found = os.environ.get("LEDGERLINE_SEARCH_URL")
    if not found:
        pytest.skip("LEDGERLINE_SEARCH_URL is not set: there is no SearXNG to ask")
    return found


def test_it_returns_results_with_their_addresses(url: str) -> None:
    tool = SearchTool(url)
    answer = tool.call(tool.arguments(queries=["New York City airports"]), Recorder(), SECONDS)

    assert "http" in answer.text
    assert "airport" in answer.text.lower()
