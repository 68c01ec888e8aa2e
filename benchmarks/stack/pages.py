"""Dagster's pages, asked what their own JavaScript asks: over GraphQL."""

import json
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation($run: String!, $policy: TerminateRunPolicy!) {
  terminateRun(runId: $run, terminatePolicy: $policy) { __typename }
}
"""
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }
"""


@dataclass(frozen=True)
class Pages:
    """The pages of a deployment with one code location.

    Attributes:
        url: Of the webserver.
        location: The code location's name.
    """

    url: str
    location: str = "ledgerline"

    @property
    def repository(self) -> Mapping[str, str]:
        """How the pages name the code location's definitions."""
        return {"repositoryLocationName": self.location, "repositoryName": "__repository__"}

    def know_the_jobs(self) -> bool:
        """Whether the code location is loaded."""
        with suppress(OSError):
            (location,) = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
            loaded = location["locationOrLoadError"]
            return loaded is not None and loaded["__typename"] == "RepositoryLocation"
        return False

    def launch(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        """Launch a run; returns its id."""
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        params = {
            "selector": {**self.repository, "jobName": job},
            "executionMetadata": {"tags": pairs},
            "runConfigData": {},
        }
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def terminate(self, run_id: str, policy: str) -> None:
        """Terminate a run."""
        answer = self.ask(TERMINATE, run=run_id, policy=policy)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """What a query is answered."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]
