"""Tests the Dockerfiles: locked packages, any mirror, and no unnecessary files in the images."""

import ast
import importlib.metadata
import re
from pathlib import Path

import pytest

from benchmarks.stack.files import DOCKER, PROJECT, services
from tests.lock_files import layers, names, pins

OURS = [DOCKER / "pipelines.Dockerfile", DOCKER / "serving.Dockerfile"]
ALL = [*OURS, DOCKER / "telemetry.Dockerfile"]

each_of_ours = pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
each = pytest.mark.parametrize("file", ALL, ids=lambda file: file.name)


def instructions(file: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line]


@each
def test_every_image_that_is_built_from_can_be_another_and_is_pinned(file: Path) -> None:
    stages = set()
    for line in instructions(file):
        if line.startswith("ARG") and "=" in line:
            image = line.partition("=")[2]
            assert re.search(r":\d+\.\d+\.\d+", image)
            # A host has a dot or a port; without one, the registry depends on Docker's configuration.
            assert "." not in image.partition(":")[0]
        if line.startswith("FROM"):
            base, _, stage = line.removeprefix("FROM ").partition(" AS ")
            assert base.startswith("${") or base in stages
            stages.add(stage)


@each
def test_nothing_is_downloaded_and_no_folder_is_copied_as_a_whole(file: Path) -> None:
    for line in instructions(file):
        assert not line.startswith("ADD ")
        assert not re.search(r"\b(curl|wget|apt-get|apk) ", line.partition("CMD")[0])
        if line.startswith("COPY") and "--from" not in line:
            *sources, _ = line.split()[1:]
            assert not {".", "./", "docker", "docker/"} & set(sources)
            for source in sources:
                assert (PROJECT / source).exists()
                assert ".env" not in source


@each_of_ours
def test_installed_packages_are_locked_with_hashes(file: Path) -> None:
    installs = re.findall(r"pip install [^&]*", "\n".join(instructions(file)))
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-deps wheels/" in command
    assert "uv build --wheel --build-constraint requirements/build.lock --require-hashes" in file.read_text()


@each_of_ours
def test_the_last_stage_has_the_programs_only_and_an_unprivileged_user(file: Path) -> None:
    last = instructions(file)
    last = last[max(number for number, line in enumerate(last) if line.startswith("FROM")) :]
    assert "USER 10001:10001" in last
    assert not any(
        re.search(r"\bpip\b|/installer", line) for line in last if line.startswith(("RUN", "COPY"))
    )
    assert not any(re.search("PASSWORD|TOKEN|SECRET|INDEX", line) for line in last)


def test_the_build_context_of_docker_is_listed_one_by_one() -> None:
    lines = [
        line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert lines[0] == "*"
    for line in lines[1:]:
        assert line.startswith(("!", "**/"))
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for file in OURS
        for line in instructions(file)
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert {re.sub(r"requirements/\w+\.lock", "requirements/*.lock", source) for source in copied} == sent


@each_of_ours
def test_an_image_is_built_from_the_layers_that_its_lock_file_names(file: Path) -> None:
    copied = re.findall(
        r"requirements/(\w+)\.lock", "\n".join(re.findall(r"^COPY .*", file.read_text(), re.M))
    )
    assert set(copied) == {*layers(file.stem), "installer", "build"}


@pytest.mark.parametrize("name", ["pipelines", "serving"])
def test_images_have_the_versions_that_are_tested(name: str) -> None:
    assert pins(name) <= pins("dev")


def test_serving_is_installed_without_dagster_and_without_mlflow_s_server() -> None:
    assert not [name for name in names("serving") if "dagster" in name]
    assert not {"mlflow", "flask", "duckdb", "lancedb", "openai"} & names("serving")


# The parts of the library that serving imports.
OF_SERVING = (
    "cleaning",
    "evaluation",
    "ledger",
    "mlflow_store",
    "registry",
    "requests",
    "serving",
    "settings",
    "traces",
)


def test_serving_is_installed_with_all_that_it_imports() -> None:
    owners = importlib.metadata.packages_distributions()
    available = names("serving") | {"ledgerline"}
    missing = {}
    for package in OF_SERVING:
        for file in (PROJECT / "ledgerline" / package).glob("*.py"):
            for module in _imported(file):
                distributions = {name.lower().replace("_", "-") for name in owners.get(module, [])}
                if distributions and not distributions & available:
                    missing.setdefault(module, set()).add(f"{package}/{file.name}")
    # The pipelines use these; serving does not call them.
    dagster = {"dagster", "dagster_postgres", "dagster_shared"}
    pipelines = dagster | {"alembic", "attr", "jinja2", "matplotlib", "openlineage", "yaml"}
    assert missing.keys() <= pipelines, missing
    assert not [file for files in missing.values() for file in files if file.startswith("serving/")]


def _imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_both_images_are_those_of_the_compose_file() -> None:
    built = {service["build"]["dockerfile"] for service in services().values() if "build" in service}
    assert built == {"docker/pipelines.Dockerfile", "docker/serving.Dockerfile", "telemetry.Dockerfile"}
