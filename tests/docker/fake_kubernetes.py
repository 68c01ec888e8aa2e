"""A fake of Kubernetes' API: it accepts Jobs, reports their status, and runs their commands here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import yaml

from ledgerline.testing.ports import HOST

PATH = re.compile(
    r"/api(s/batch)?/v1/namespaces/(?P<namespace>[^/]+)/(jobs|pods)(/(?P<name>[^/]+)(/status)?)?"
)
END_SECONDS = 60


@dataclass(frozen=True)
class StartProblem:
    """The reason why no pod starts on its node.

    Attributes:
        reason: The reason for which its container waits.
        since: When pods got their node.
    """

    reason: str
    since: datetime


class FakeKubernetes:
    """Jobs that were created, as they were sent, and their processes.

    Attributes:
        jobs: The body of each, by namespace and name.
        deleted: The Jobs and pods that were deleted, by namespace and name.
        start_problem: Why their commands are not run; None if they are.
    """

    def __init__(self, runs_commands: bool) -> None:
        self.jobs: dict[tuple[str, str], Any] = {}
        self.deleted: set[tuple[str, str]] = set()
        self.start_problem: StartProblem | None = None
        self._runs_commands = runs_commands
        self._processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}

    def create(self, namespace: str, job: Any) -> None:
        """Take a Job, and start what its container is to run."""
        key = (namespace, job["metadata"]["name"])
        self.jobs[key] = job
        if not self._runs_commands or self.start_problem is not None:
            return
        (container,) = job["spec"]["template"]["spec"]["containers"]
        variables = {
            variable["name"]: variable["value"] for variable in container["env"] if "value" in variable
        }
        self._processes[key] = subprocess.Popen(
            container["args"],
            env=os.environ | variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def status(self, key: tuple[str, str]) -> Mapping[str, int]:
        """How a Job is."""
        process = self._processes.get(key)
        code = None if process is None else process.poll()
        if code is None:
            return {"active": 1}
        return {"succeeded": 1} if code == 0 else {"failed": 1}

    def pods(self, job: str) -> list[Any]:
        """The pods of a Job that do not start; of others none."""
        if self.start_problem is None:
            return []
        waiting = {"reason": self.start_problem.reason, "message": "no such thing"}
        status: dict[str, Any] = {
            "phase": "Pending",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "True",
                    "lastTransitionTime": self.start_problem.since.isoformat(),
                }
            ],
        }
        container = {"name": "dagster", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        status["containerStatuses"] = [container | {"state": {"waiting": waiting}}]
        spec = {"containers": [{"name": "dagster"}], "nodeName": "node-1"}
        return [{"metadata": {"name": f"{job}-pod"}, "spec": spec, "status": status}]

    def wait(self) -> None:
        """Until nothing runs any more."""
        for process in self._processes.values():
            process.wait(END_SECONDS)


class _Api(BaseHTTPRequestHandler):
    fake: FakeKubernetes
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        found = PATH.fullmatch(self.path.partition("?")[0])
        assert found is not None
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.fake.create(found["namespace"], job)
        self._answer(job, 201)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.endswith("/pods"):
            (selector,) = parse_qs(query)["labelSelector"]
            pods = self.fake.pods(selector.removeprefix("job-name="))
            self._answer({"kind": "PodList", "items": pods}, 200)
            return
        found = PATH.fullmatch(self.path.partition("?")[0])
        assert found is not None
        key = (found["namespace"], found["name"])
        if key not in self.fake.jobs:
            self._answer({"kind": "Status", "code": 404}, 404)
        else:
            self._answer(self.fake.jobs[key] | {"status": self.fake.status(key)}, 200)

    def do_DELETE(self) -> None:
        found = PATH.fullmatch(self.path.partition("?")[0])
        assert found is not None
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.fake.deleted.add((found["namespace"], found["name"]))
        self._answer({"kind": "Status", "status": "Success"}, 200)

    def _answer(self, content: Any, status: int) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
        """Keep quiet."""


@contextmanager
def serving(folder: Path, *, runs_commands: bool) -> Iterator[tuple[FakeKubernetes, Path]]:
    """The fake, and a kubeconfig that leads to it."""
    fake = FakeKubernetes(runs_commands)
    server = ThreadingHTTPServer((HOST, 0), type("Api", (_Api,), {"fake": fake}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    config = folder / "kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "fake", "cluster": {"server": f"http://{HOST}:{server.server_port}"}}],
                "users": [{"name": "nobody", "user": {}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
                "current-context": "fake",
            }
        )
    )
    try:
        yield fake, config
    finally:
        fake.wait()
        server.shutdown()
        server.server_close()
        thread.join()
