"""Describes the services of docker/compose.yaml as processes of this machine, on loopback.

Commands, variables and folders are read from the compose file and the Dockerfiles. Addresses and folders
inside a container become those of this machine. stack.py starts the processes.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import PROJECT_ROOT, SCRIPTS
from benchmarks.stack.files import DOCKER, VARIABLE, services
from ledgerline.testing.ports import HOST, unused_port

# Defaults that compose.yaml does not set, because containers do not share addresses and folders.
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
ANYWHERE = "0.0.0.0"  # noqa: S104 (containers listen there; it becomes loopback)

# Variables of this machine that programs need.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Described:
    """The arguments of `subprocess` for a process."""

    command: list[str]
    environment: dict[str, str]
    folder: Path


@dataclass
class Machine:
    """The folder and the ports of the services.

    Attributes:
        folder: Folder in which each service has `opt`, `etc`, `tmp` and `var/lib`.
        variables: Variables of docker/.env.
        programs: Programs of images that this project does not build, by service.
    """

    folder: Path
    variables: Mapping[str, str]
    programs: Mapping[str, Path]
    _ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def port(self, service: str, inside: int) -> int:
        """Return the port on this machine for a port inside a container."""
        if (service, inside) not in self._ports:
            self._ports[service, inside] = unused_port()
        return self._ports[service, inside]

    def use_port(self, service: str, inside: int, port: int) -> None:
        """Use a port at which a program already listens."""
        self._ports[service, inside] = port

    def url(self, service: str, inside: int) -> str:
        """Return the URL of a port of a service."""
        return f"http://{HOST}:{self.port(service, inside)}"

    def described(
        self, service: str, additions: Mapping[str, str] | None = None, options: Sequence[Path] = ()
    ) -> Described:
        """Return how a service is started on this machine, with additional variables and compose files."""
        definition = _with_options(service, options)
        of_image, image_command = _of_image(definition)
        given = {**OF_CONTAINERS.get(service, {}), **definition.get("environment", {}), **(additions or {})}
        environment = {**of_image, **self._with_ports(service, given)}
        command = self._command(service, definition.get("command") or image_command)
        if service in self.programs:
            command.insert(0, str(self.programs[service]))
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        kept["PATH"] = f"{SCRIPTS}{os.pathsep}{kept['PATH']}"
        self._make_folders(service)
        return Described(
            command=command,
            environment={**kept, **{name: self._here(service, text) for name, text in environment.items()}},
            folder=self.folder / service / "var" / "lib",
        )

    def health(self, service: str) -> str | None:
        """Return the URL that a service's health check requests; None for another kind of check."""
        test = " ".join(services()[service]["healthcheck"]["test"])
        page = re.search(rf"http://{re.escape(HOST)}:(\d+)(/[\w/]*)", test)
        return self.url(service, int(page[1])) + page[2] if page is not None else None

    def _with_ports(self, service: str, given: Mapping[str, Any]) -> dict[str, str]:
        """Return variables, with the port on this machine in each variable that contains only a port."""
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
        """Return a text with the addresses and folders of this machine."""

        def address(service: str, port: str) -> str:
            return f"{HOST}:{self.port(service, int(port))}"

        anywhere = re.escape(ANYWHERE)
        text = re.sub(rf"{anywhere}:(\d+)", lambda match: address(service, match[1]), text)
        option = rf"--host {anywhere} --port (\d+)"
        text = re.sub(option, lambda match: f"--host {HOST} --port {self.port(service, int(match[1]))}", text)
        names = rf"(?<![\w.-])({'|'.join(services())}):(\d+)\b"
        text = re.sub(names, lambda match: address(match[1], match[2]), text)
        return PROGRAM_FOLDERS.sub(f"{self.folder / service}/", text)

    def _filled_in(self, text: str) -> str:
        """Return a text of the compose file with the values of its variables."""
        published = _published()

        def value(match: re.Match[str]) -> str:
            if match["name"] in published:
                return str(self.port(*published[match["name"]]))
            if match["name"] in self.variables:
                return self.variables[match["name"]]
            assert match["rest"].startswith(":-"), f"{match['name']} is not in docker/.env"
            return match["rest"].removeprefix(":-")

        return VARIABLE.sub(value, text).replace("$$", "$")

    def _make_folders(self, service: str) -> None:
        """Create links to the files that are mounted in a container, and to those of its image."""
        root = self.folder / service
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
    """Return the service and the port inside for each variable that names a published port."""
    return {
        match["name"]: (name, int(match["inside"]))
        for name, service in services().items()
        for port in service.get("ports", [])
        if (match := re.search(r"\$\{(?P<name>\w+):-\d+\}:(?P<inside>\d+)$", port)) is not None
    }


def _with_options(service: str, options: Sequence[Path]) -> dict[str, Any]:
    """Return a service's definition: the last file sets the command, and every file may set variables."""
    definition = dict(services()[service])
    for file in options:
        more = yaml.safe_load(file.read_text())["services"].get(service, {})
        assert more.keys() <= {"command", "environment"}
        variables = {**definition.get("environment", {}), **more.get("environment", {})}
        definition |= {**more, "environment": variables}
    return definition


def _link(name: Path, target: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    if not name.is_symlink():
        name.symlink_to(target)


def _of_image(service: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the environment and the command that the last stage of a Dockerfile of this project sets."""
    name = re.match(r"ledgerline-(pipelines|serving):", service["image"])
    if name is None:
        return {}, []
    text = re.sub(r"\\\n\s*", " ", (DOCKER / f"{name[1]}.Dockerfile").read_text()).rpartition("FROM ")[2]
    variables = re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE)))
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    # PATH and HOME are those of this machine.
    kept = {name: value for name, value in variables if name not in ("PATH", "HOME", "MPLCONFIGDIR")}
    return kept, json.loads(command)
