"""Tests that the workflow of GitHub runs .ci/run, with few permissions and pinned actions."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
STEPS = WORKFLOW["jobs"]["ci"]["steps"]


def test_the_workflow_runs_the_script_of_every_other_ci() -> None:
    script = STEPS[-1]["run"]
    assert script == ".ci/run"
    assert (ROOT / script).stat().st_mode & 0o111


def test_the_workflow_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    (checkout,) = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["persist-credentials"] is False


def test_every_action_is_pinned_to_a_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", action) for action in used)
