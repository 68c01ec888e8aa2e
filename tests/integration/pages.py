"""A client of Dagster's webserver, which sends the GraphQL queries of its pages."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dagster as dg
import requests

from ledgerline.testing.waiting import wait_until

RUN_SECONDS = 240

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
    """The webserver of a deployment with one code location, whose name is `location`."""

    url: str
    location: str = "ledgerline"

    @property
    def repository(self) -> Mapping[str, str]:
        """Return the selector of the code location's definitions."""
        return {"repositoryLocationName": self.location, "repositoryName": "__repository__"}

    def have_jobs(self) -> bool:
        """Return whether the code location is loaded."""
        with suppress(OSError):
            (location,) = self.query(LOCATIONS)["workspaceOrError"]["locationEntries"]
            loaded = location["locationOrLoadError"]
            return loaded is not None and loaded["__typename"] == "RepositoryLocation"
        return False

    def launch(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        """Launch a run; return its id."""
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        params = {
            "selector": {**self.repository, "jobName": job},
            "executionMetadata": {"tags": pairs},
            "runConfigData": {},
        }
        launched = self.query(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def terminate(self, run_id: str, policy: str) -> None:
        """Terminate a run."""
        result = self.query(TERMINATE, run=run_id, policy=policy)["terminateRun"]
        assert result["__typename"] == "TerminateRunSuccess", result

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a query."""
        body = {"query": query, "variables": variables}
        response = requests.post(f"{self.url}/graphql", json=body, timeout=30)
        response.raise_for_status()
        result = response.json()
        assert "errors" not in result, result
        return result["data"]


def wait_for_the_end(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """Wait until a run has ended; return its status."""

    def status() -> dg.DagsterRunStatus | None:
        run = instance.get_run_by_id(run_id)
        return run.status if run is not None and run.is_finished else None

    ended = wait_until(status, "the run has ended", RUN_SECONDS)
    assert ended is not None
    return ended
