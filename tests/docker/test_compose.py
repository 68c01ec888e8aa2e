"""Tests that the compose file is pinned, on loopback, limited, monitored and without default secrets."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.stack.files import (
    COMPOSE,
    DOCKER,
    LOGIN,
    PROJECT,
    SAMPLING,
    compose,
    services,
    variables,
)

RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()
PAGES = (PROJECT / "docs" / "how-to" / "deploy.md").read_text() + RUNBOOK
SETTINGS = (PROJECT / ".env.example").read_text()
ONCE = ("mlflow-database", "ollama-folder")

each_service = pytest.mark.parametrize("name", services())


@each_service
def test_every_image_is_pinned(name: str) -> None:
    tag = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", services()[name]["image"]).rpartition(":")[2]
    assert re.search(r"\d+\.\d+", tag)


@each_service
def test_every_port_is_on_loopback_only(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert port.startswith("127.0.0.1:")


@each_service
def test_no_process_can_gain_privileges(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    user = service["user"].split(":")[0]
    assert user.isdecimal()
    # One gives a folder to its owner, and ends.
    assert user != "0" or (name == "ollama-folder" and service["cap_add"] == ["CHOWN"])
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


@each_service
def test_every_service_is_read_only_but_for_its_volumes(name: str) -> None:
    # SearXNG's start script writes into its own folders.
    assert services()[name]["read_only"] is (name != "searxng")


@each_service
def test_every_service_has_limits_and_rotates_its_log(name: str) -> None:
    service = services()[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@each_service
def test_every_service_is_started_again_and_watched(name: str) -> None:
    service = services()[name]
    if name in ONCE:
        assert service["restart"] == "on-failure:3"
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"


@each_service
def test_services_wait_until_their_dependencies_are_healthy(name: str) -> None:
    for other, how in services()[name].get("depends_on", {}).items():
        ends = other in ONCE
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")


@each_service
def test_all_are_on_one_network_and_volumes_have_names(name: str) -> None:
    assert services()[name]["networks"] == list(compose()["networks"])
    for volume in services()[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("./"):
            assert (DOCKER / source).is_file()
            assert volume.endswith(":ro")
        else:
            assert source in compose()["volumes"]


def test_only_agents_and_metrics_are_optional() -> None:
    profiles = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert profiles == {
        "ollama": ["agents"],
        "ollama-folder": ["agents"],
        "searxng": ["agents"],
        "prometheus": ["metrics"],
    }


@pytest.mark.parametrize("file", [COMPOSE, LOGIN, SAMPLING])
def test_every_secret_is_required_and_has_no_default(file: Path) -> None:
    for name, rests in variables(file).items():
        if re.search("PASSWORD|SECRET|TOKEN|AUTHORIZATION|_KEY$", name):
            assert all(rest.startswith(":?") for rest in rests), name


def test_every_variable_of_the_compose_file_is_documented() -> None:
    known = SETTINGS + PAGES + PAGES.replace("`_", "`LEDGERLINE_")
    files = COMPOSE, LOGIN, SAMPLING
    undocumented = [name for file in files for name in variables(file) if name not in known]
    assert undocumented == []


def test_every_setting_of_this_project_is_one_that_exists() -> None:
    settings = set(re.findall(r"^# (\w+)=", SETTINGS, re.MULTILINE))
    given = {
        name
        for service in services().values()
        for name in service.get("environment", {})
        if name.startswith(("LEDGERLINE_", "OTEL_"))
    }
    assert given <= settings


@pytest.mark.parametrize("program", ["jaeger", "otel-collector"])
def test_every_variable_given_to_a_server_is_one_of_its_configuration(program: str) -> None:
    asked = "".join(file.read_text() for file in DOCKER.glob(f"{program}*.yaml"))
    names = {**services()[program]["environment"], **option(SAMPLING, program).get("environment", {})}
    for name in names:
        assert f"${{env:{name}:-" in asked


@pytest.mark.parametrize("file", [LOGIN, SAMPLING])
def test_an_option_changes_services_that_are_there(file: Path) -> None:
    assert yaml.safe_load(file.read_text())["services"].keys() <= services().keys()
    assert f"-f docker/{file.name}" in PAGES


def test_servers_are_given_configurations_that_are_mounted() -> None:
    for program in ("jaeger", "otel-collector"):
        mounted = {volume.split(":")[1] for volume in services()[program]["volumes"]}
        for command in (services()[program]["command"], option(SAMPLING, program).get("command", [])):
            assert {word for word in command if word.startswith("/")} <= mounted


def option(file: Path, service: str) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())["services"].get(service, {})


def test_every_variable_of_dagsters_configuration_is_set_for_all_users_of_the_instance() -> None:
    asked = set(re.findall(r"env: (\w+)", (DOCKER / "dagster.yaml").read_text()))
    of_the_workspace = set(re.findall(r"env: (\w+)", (DOCKER / "workspace.yaml").read_text()))
    for name in ("code", "dagster-webserver", "dagster-daemon", "observer"):
        assert asked | of_the_workspace <= services()[name]["environment"].keys()


def test_the_instance_differs_from_that_of_one_machine_in_addresses_only() -> None:
    here = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    stack = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    for part in ("telemetry", "nux", "concurrency", "sensors", "schedules", "retention"):
        assert stack[part] == here[part]
    assert stack["run_monitoring"].items() >= here["run_monitoring"].items()


def test_runs_are_exported_by_the_observer_alone() -> None:
    assert services()["code"]["environment"]["LEDGERLINE_OBSERVER"] == "service"
    assert services()["observer"]["command"] == ["ledgerline", "observe", "--follow"]


def test_every_alarm_is_in_the_runbook() -> None:
    groups = yaml.safe_load((DOCKER / "alarms.yaml").read_text())["groups"]
    alarms = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alarms == set(re.findall(r"^\| `(\w+)` \| ", RUNBOOK.partition("## Alarms")[2], re.MULTILINE))


def test_prometheus_scrapes_existing_services() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())["scrape_configs"]
    asked = {target for job in jobs for part in job["static_configs"] for target in part["targets"]}
    assert {target.split(":")[0] for target in asked} <= services().keys()


def test_prometheus_gets_the_first_token_only() -> None:
    script = services()["prometheus"]["entrypoint"][2].replace("$$", "$")
    write = script.partition(" > ")[0].rpartition("&& ")[2]
    for tokens in ("new,old", "new"):
        result = subprocess.run(
            ["/bin/sh", "-c", write], env={"SERVING_TOKEN": tokens}, capture_output=True, check=True
        )
        assert result.stdout == b"new"


def test_runs_are_waited_for_before_their_servers_are_replaced() -> None:
    assert {name: on["restart"] for name, on in services()["code"]["depends_on"].items()} == {
        "postgres": True,
        "mlflow": True,
    }


def test_no_service_has_more_than_two_processors() -> None:
    """Docker refuses to start a container that may use more than the machine has."""
    for name, service in services().items():
        wanted = service["deploy"]["resources"]["limits"]["cpus"]
        assert float(re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", wanted)) <= 2, name


def test_an_image_that_is_built_here_is_not_pulled() -> None:
    for name, service in services().items():
        if service["image"].startswith("ledgerline-") and "build" not in service:
            assert service["pull_policy"] == "never", name


@pytest.fixture(scope="module")
def docker_compose() -> list[str]:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("Docker is not installed")
    result = subprocess.run(
        [docker, "compose", "version", "--short"], capture_output=True, text=True, check=False
    )
    if result.returncode != 0 or not result.stdout.strip().lstrip("v").startswith(("2.", "5.")):
        pytest.skip("Docker has no Compose of version 2 or later")
    return [docker, "compose"]


def configuration(docker_compose: list[str], secrets: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    options = [part for file in files for part in ("--file", str(file))]
    return subprocess.run(
        [*docker_compose, "--env-file", secrets, *options, "--profile", "*", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )


@pytest.mark.parametrize("files", [(COMPOSE,), (COMPOSE, LOGIN), (COMPOSE, LOGIN, SAMPLING)])
def test_compose_itself_accepts_the_files(
    docker_compose: list[str], tmp_path: Path, files: tuple[Path, ...]
) -> None:
    subprocess.run([DOCKER / "secrets", tmp_path / ".env"], check=True, capture_output=True)
    made = configuration(docker_compose, tmp_path / ".env", *files)
    assert made.returncode == 0, made.stderr
    read: dict[str, Any] = yaml.safe_load(made.stdout)
    assert read["services"].keys() == services().keys()
    assert made.stderr == ""


def test_without_secrets_compose_refuses(docker_compose: list[str], tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    made = configuration(docker_compose, tmp_path / ".env", COMPOSE)
    assert made.returncode != 0
    assert "run make stack-secrets" in made.stderr
