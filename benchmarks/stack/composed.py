"""Services of docker/compose.yaml as processes of this machine: command, variables, folders; on loopback.

Nothing is said here that the compose file and the Dockerfiles say: it is read from them, and only what a
container has to itself, addresses and folders, becomes one of this machine. Who starts them: stack.py.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import PROJECT_ROOT
from benchmarks.stack.files import DOCKER, VARIABLE, services
from ledgerline.testing.ports import HOST, unused_port

# Defaults that compose.yaml need not name, since each container has addresses and folders of its own.
OF_CONTAINERS = {
    "jaeger": {
        "JAEGER_FOLDER": "/var/lib/jaeger",
        "JAEGER_HEALTH_ENDPOINT": "0.0.0.0:13134",
        "JAEGER_QUERY_GRPC_ENDPOINT": "0.0.0.0:16685",
    },
    "otel-collector": {
        "OTELCOL_HEALTH_ENDPOINT": "0.0.0.0:13133",
        "OTELCOL_METRICS_PORT": "8888",
        "OTELCOL_QUEUE_FOLDER": "/var/lib/otelcol",
    },
    "serving": {"LEDGERLINE_SERVING_PORT": "8080"},
}
PROGRAM_FOLDERS = re.compile(r"(?<![\w/.])/(?=(?:opt|etc|tmp|var/lib)/)")
ANYWHERE = "0.0.0.0"  # noqa: S104 (what containers listen on; it becomes loopback)

# Of this machine, without which no program runs as it should.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Described:
    """A process, as `subprocess` wants it."""

    command: list[str]
    environment: dict[str, str]
    folder: Path


@dataclass
class Machine:
    """Where the services are: a folder for all that they keep, and a port for each of theirs.

    Attributes:
        folder: For everything; each service has its own `opt`, `etc`, `tmp` and `var/lib` below it.
        variables: What stands in docker/.env.
        programs: What images of others start, by service.
    """

    folder: Path
    variables: Mapping[str, str]
    programs: Mapping[str, Path]
    _ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def port(self, service: str, inside: int) -> int:
        """The port of this machine for a port of a service's container."""
        if (service, inside) not in self._ports:
            self._ports[service, inside] = unused_port()
        return self._ports[service, inside]

    def use_port(self, service: str, inside: int, port: int) -> None:
        """Have it be this one: something listens there already."""
        self._ports[service, inside] = port

    def url(self, service: str, inside: int) -> str:
        """Return the address of a port of a service."""
        return f"http://{HOST}:{self.port(service, inside)}"

    def described(
        self, service: str, additions: Mapping[str, str] | None = None, options: Sequence[Path] = ()
    ) -> Described:
        """How a service is started here.

        Args:
            service: Its name in compose.yaml.
            additions: Variables that it has besides.
            options: Further compose files, as `docker compose -f` takes them.
        """
        found = _with_options(service, options)
        image = _image_of(found)
        given = {**OF_CONTAINERS.get(service, {}), **found.get("environment", {}), **(additions or {})}
        environment = {**image.environment, **self._with_ports(service, given)}
        command = self._command(service, found.get("command") or image.command)
        if service in self.programs:
            command.insert(0, str(self.programs[service]))
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        self._make_folders(service)
        return Described(
            command=command,
            environment={**kept, **{name: self._here(service, text) for name, text in environment.items()}},
            folder=self._root(service) / "var" / "lib",
        )

    def health(self, service: str) -> str | None:
        """The page that the service's health check asks for; None if it asks in another way."""
        test = " ".join(services()[service]["healthcheck"]["test"])
        asked = re.search(rf"http://{re.escape(HOST)}:(\d+)(/[\w/]*)", test)
        return self.url(service, int(asked[1])) + asked[2] if asked is not None else None

    def _with_ports(self, service: str, given: Mapping[str, Any]) -> dict[str, str]:
        """Variables, with the ports that stand alone in theirs."""
        made = {name: self._filled_in(str(value)) for name, value in given.items()}
        for name in list(made):
            if name.endswith("_PORT") and made[name].isdecimal():
                host = made.get(name.removesuffix("PORT") + "HOST", ANYWHERE)
                owner = host if host in services() else service
                made[name] = str(self.port(owner, int(made[name])))
        return {name: HOST if text in (ANYWHERE, *services()) else text for name, text in made.items()}

    def _command(self, service: str, words: list[str]) -> list[str]:
        made = [self._here(service, self._filled_in(word)) for word in words]
        for place, (word, before) in enumerate(zip(words, ["", *words], strict=False)):
            if place > 0 and word in (ANYWHERE, *services()):
                made[place] = HOST
            elif word.isdecimal() and (before == "--port" or before in services()):
                made[place] = str(self.port(before if before in services() else service, int(word)))
        return made

    def _here(self, service: str, text: str) -> str:
        """Addresses and folders in a text, as they are here."""
        text = re.sub(
            rf"{re.escape(ANYWHERE)}:(\d+)", lambda found: f"{HOST}:{self.port(service, int(found[1]))}", text
        )
        text = re.sub(
            rf"--host {re.escape(ANYWHERE)} --port (\d+)",
            lambda found: f"--host {HOST} --port {self.port(service, int(found[1]))}",
            text,
        )
        text = re.sub(
            rf"(?<![\w.-])({'|'.join(services())}):(\d+)\b",
            lambda found: f"{HOST}:{self.port(found[1], int(found[2]))}",
            text,
        )
        return PROGRAM_FOLDERS.sub(f"{self._root(service)}/", text)

    def _filled_in(self, text: str) -> str:
        """A text of the compose file with its variables, as Compose fills them in."""
        published = _published()

        def value(found: re.Match[str]) -> str:
            if found["name"] in published:
                return str(self.port(*published[found["name"]]))
            if found["name"] in self.variables:
                return self.variables[found["name"]]
            assert found["rest"].startswith(":-"), f"{found['name']} is not in docker/.env"
            return found["rest"].removeprefix(":-")

        return VARIABLE.sub(value, text).replace("$$", "$")

    def _root(self, service: str) -> Path:
        return self.folder / service

    def _make_folders(self, service: str) -> None:
        """What is mounted in the container, and what its image has, as links."""
        root = self._root(service)
        for folder in ("tmp", "var/lib"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for script in ("code_server.py", "prepare_mlflow.py", "run_launcher.py"):
            _link(root / "opt" / "ledgerline" / script, DOCKER / script)
        _link(root / "opt" / "ledgerline" / "pyproject.toml", PROJECT_ROOT / "pyproject.toml")
        for mount in services()[service].get("volumes", []):
            source, inside = mount.split(":")[:2]
            if source.startswith("./"):
                target = DOCKER / source
            else:
                target = self.folder / "volumes" / source
                target.mkdir(parents=True, exist_ok=True)
            _link(root / inside.lstrip("/"), target)


def _published() -> dict[str, tuple[str, int]]:
    """Which variable of docker/.env is the port at which a port of a service is open to people."""
    return {
        found["name"]: (name, int(found["inside"]))
        for name, service in services().items()
        for port in service.get("ports", [])
        if (found := re.search(r"\$\{(?P<name>\w+):-\d+\}:(?P<inside>\d+)$", port)) is not None
    }


def _with_options(service: str, options: Sequence[Path]) -> dict[str, Any]:
    """What compose files say of a service together: the last says the command, all of them variables."""
    found = dict(services()[service])
    for file in options:
        more = yaml.safe_load(file.read_text())["services"].get(service, {})
        assert more.keys() <= {"command", "environment"}
        both = {**found.get("environment", {}), **more.get("environment", {})}
        found |= {**more, "environment": both}
    return found


def _link(name: Path, target: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    if not name.is_symlink():
        name.symlink_to(target)


@dataclass(frozen=True)
class _Image:
    """What the last stage of a Dockerfile gives to every process."""

    environment: Mapping[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)


def _image_of(service: Mapping[str, Any]) -> _Image:
    """Of this project's own images; those of others start a program of their own."""
    name = re.match(r"ledgerline-(pipelines|serving):", service["image"])
    if name is None:
        return _Image()
    text = re.sub(r"\\\n\s*", " ", (DOCKER / f"{name[1]}.Dockerfile").read_text()).rpartition("FROM ")[2]
    variables = re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE)))
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    # PATH and HOME are those of this machine.
    kept = {name: value for name, value in variables if name not in ("PATH", "HOME", "MPLCONFIGDIR")}
    return _Image(kept, json.loads(command))
