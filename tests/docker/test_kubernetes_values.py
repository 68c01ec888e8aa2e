"""Tests the values of Dagster's chart: valid, confined, and with the instance of docker/dagster.yaml."""

import copy
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from benchmarks.stack.files import DOCKER, PROJECT, services
from ledgerline.settings.version import VERSION
from tests.docker import chart_instance
from tests.docker.kubernetes_files import (
    PART,
    VERSIONS,
    kustomization,
    of_kind,
    require_confined,
    values,
)

SCHEMA = yaml.safe_load((PROJECT / "tests" / "docker" / "chart_values.yaml").read_text())
STACK = yaml.safe_load((DOCKER / "dagster.yaml").read_text())


def code() -> Any:
    (deployment,) = values()["dagster-user-deployments"]["deployments"]
    return deployment


def launcher() -> Any:
    return chart_instance.run_launcher()["config"]


def mounts_of(declared: Any) -> Any:
    """Return the mounts, by the chart's name for them or by Dagster's."""
    return declared.get("volumeMounts", declared.get("volume_mounts"))


# The parts of the chart whose pods the values confine and label.
PARTS = {"webserver": values()["dagsterWebserver"], "daemon": values()["dagsterDaemon"], "code": code()}


def validator(version: str) -> jsonschema.Draft202012Validator:
    definitions = schema_contents(
        f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version
    )
    # One file for many kinds: it names itself as it is looked up from within.
    kubernetes = Resource.from_contents(definitions | {"$schema": SCHEMA["$schema"]})
    registry: Registry[Any] = Registry().with_resources(
        [("kubernetes", kubernetes), ("_definitions.json", kubernetes)]
    )
    return jsonschema.Draft202012Validator(SCHEMA, registry=registry)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_accepts_every_value(version: str) -> None:
    validator(version).validate(values())


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("dagsterDaemon", "runMonitorin", {}),
        ("dagsterDaemon", "resources", {"limit": {}}),
        ("dagsterWebserver", "livenessProbe", {"httpGet": {"path": "/server_info"}}),
        ("dagsterWebserver", "volumes", [{"name": "tmp", "emptyDirectory": {}}]),
        ("postgresql", "postgresqlScheme", 2),
        ("retention", "sensor", {"purgeAfterDays": {"skipped": 1}}),
    ],
)
def test_misspelt_and_missing_values_are_refused(part: str, key: str, value: object) -> None:
    wrong = copy.deepcopy(values())
    wrong[part][key] = value
    assert not validator(VERSIONS[-1]).is_valid(wrong)


def test_the_chart_is_of_the_version_of_dagster() -> None:
    version = importlib.metadata.version("dagster")
    text = (DOCKER / "kubernetes" / "dagster-values.yaml").read_text()
    assert set(re.findall(r"(?:version|Dagster) (1\.\d+\.\d+)\b", text)) == {version}
    assert f"--version {version}" in (PROJECT / "docs" / "how-to" / "deploy.md").read_text()


def test_the_page_names_the_webserver_s_service_as_the_chart_does() -> None:
    # Release name and `nameOverride`, whose default is dagster-webserver (templates/helpers/_helpers.tpl).
    name = f"dagster-{values()['dagsterWebserver'].get('nameOverride', 'dagster-webserver')}"
    page = (PROJECT / "docs" / "how-to" / "deploy.md").read_text()
    assert re.findall(r"helm upgrade --install (\S+)", page) == ["dagster"]
    assert re.findall(r"service/(\S+) 3000", page) == [name]


@pytest.mark.parametrize("name", PARTS)
def test_no_process_can_gain_privileges(name: str) -> None:
    declared = PARTS[name]
    require_confined(
        {
            "securityContext": declared["podSecurityContext"],
            "volumes": declared["volumes"],
            "containers": [
                {"securityContext": declared["securityContext"], "resources": declared["resources"]}
            ],
        }
    )


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_the_label_by_which_others_let_it_in(name: str) -> None:
    assert PARTS[name]["labels"] == {PART: name}
    assert launcher()["labels"] == {PART: "run"}


@pytest.mark.parametrize("name", PARTS)
def test_images_are_those_of_compose_and_of_the_manifests(name: str) -> None:
    tags = {image["name"]: image["newTag"] for image in kustomization()["images"]}
    image = PARTS[name]["image"]
    assert image["tag"] == tags[image["repository"]]
    assert services()["code"]["image"] == f"{image['repository']}:${{LEDGERLINE_VERSION:-{image['tag']}}}"
    database, shell = values()["postgresql"]["image"], values()["busybox"]["image"]
    assert f"{database['repository']}:{database['tag']}" == services()["postgres"]["image"]
    assert f"{shell['repository']}:{shell['tag']}" == services()["ollama-folder"]["image"]


def test_the_manifests_have_the_version_of_this_project() -> None:
    assert {image["newTag"] for image in kustomization()["images"]} == {VERSION}


@pytest.mark.parametrize("name", PARTS)
def test_mounts_are_of_volumes_and_volumes_of_claims_that_are_there(name: str) -> None:
    for declared in (PARTS[name], launcher()):
        mounts = mounts_of(declared)
        assert {mount["name"] for mount in mounts} == {one["name"] for one in declared["volumes"]}
        assert {"name": "tmp", "mountPath": "/tmp"} in mounts  # noqa: S108 (of the pod)
        for volume in declared["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in of_kind("PersistentVolumeClaim")


def test_only_programs_that_write_tables_have_write_access() -> None:
    writers = {"code": code(), "run": launcher(), "webserver": PARTS["webserver"]}
    may = {
        name
        for name, declared in writers.items()
        for mount in mounts_of(declared)
        if mount["name"] == "state" and not mount.get("readOnly")
    }
    assert may == {"code", "run"}


def test_variables_refer_to_existing_values_and_passwords_to_secrets() -> None:
    assert [source["name"] for source in code()["envConfigMaps"]] == ["ledgerline"]
    assert [source["name"] for source in code()["envSecrets"]] == ["ledgerline"]
    assert launcher()["env_config_maps"] == launcher()["env_secrets"] == ["ledgerline"]
    assert "ledgerline" in of_kind("ConfigMap")
    assert values()["postgresql"]["postgresqlPassword"] == ""
    assert values()["generatePostgresqlPasswordSecret"] is False


def test_accounts_are_those_of_the_manifests() -> None:
    names = {
        values()["serviceAccount"]["name"],
        values()["dagster-user-deployments"]["serviceAccount"]["name"],
        launcher()["run_k8s_config"]["pod_spec_config"]["serviceAccountName"],
    }
    assert names == of_kind("ServiceAccount").keys() - {"ledgerline"}
    for declared in (values(), values()["dagster-user-deployments"]):
        assert declared["rbacEnabled"] is False
        assert declared["serviceAccount"]["create"] is False


def test_the_port_of_the_code_server_is_that_of_the_network_policy() -> None:
    assert code()["dagsterApiGrpcArgs"] == ["-m", "pipelines.definitions"]
    policy = of_kind("NetworkPolicy")["code"]["spec"]
    assert policy["ingress"][0]["ports"] == [{"port": code()["port"]}]
    # The location's name, which runs are tagged with, is the same under Compose.
    (server,) = yaml.safe_load((DOCKER / "workspace.yaml").read_text())["load_from"]
    assert code()["name"] == server["grpc_server"]["location_name"]


def test_the_probe_of_the_webserver_has_its_port() -> None:
    webserver = values()["dagsterWebserver"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert webserver[probe]["httpGet"] == {"path": "/server_info", "port": webserver["service"]["port"]}
    assert "/server_info" in services()["dagster-webserver"]["healthcheck"]["test"][-1]


def test_the_daemon_is_watched_as_by_compose() -> None:
    command = values()["dagsterDaemon"]["livenessProbe"]["exec"]["command"]
    assert ["CMD", *command] == services()["dagster-daemon"]["healthcheck"]["test"]


def test_the_instance_differs_from_that_of_the_stack_in_addresses_only() -> None:
    here = chart_instance.instance()
    for part in ("telemetry", "nux", "concurrency", "run_retries", "sensors", "schedules"):
        assert here[part] == STACK[part]
    assert here["run_coordinator"]["config"] == STACK["run_queue"]
    # A run of the stack is a process, which cannot be taken up again.
    assert here["run_monitoring"] == STACK["run_monitoring"] | {
        "max_resume_run_attempts": 2,
        "free_slots_after_run_end_seconds": 0,
    }
    for part in ("schedule", "sensor"):
        kept = here["retention"][part]["purge_after_days"]
        assert kept == STACK["retention"][part]["purge_after_days"] | {
            "started": -1
        }  # without a limit, as by default
    for part in ("compute_logs", "local_artifact_storage"):
        assert (here[part]["module"], here[part]["class"]) == (STACK[part]["module"], STACK[part]["class"])


def test_the_databases_are_opened_with_the_driver_that_dagster_is_written_for() -> None:
    from dagster_postgres.utils import pg_url_from_config

    here, stack = chart_instance.storage(), STACK["storage"]["postgres"]["postgres_db"]
    assert here["scheme"] == stack["scheme"] == "postgresql+psycopg2"
    url = pg_url_from_config({"postgres_db": here | {"password": "of-the-secret"}})
    assert url == "postgresql+psycopg2://dagster:of-the-secret@postgres:5432/dagster"
    environment = services()["code"]["environment"]
    assert (here["hostname"], here["username"]) == (
        environment["DAGSTER_POSTGRES_HOST"],
        environment["DAGSTER_POSTGRES_USER"],
    )


def test_dagster_itself_accepts_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.run_coordinator import QueuedRunCoordinator

    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "of-the-secret")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(chart_instance.instance()))
    ref = InstanceRef.from_dir(str(tmp_path))
    assert isinstance(ref.run_coordinator, QueuedRunCoordinator)
    assert ref.run_coordinator.get_run_queue_config().max_user_code_failure_retries == 20
    settings: Any = ref.settings
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] == 2
    assert settings["run_monitoring"]["max_resume_run_attempts"] == 2
    assert ref.local_artifact_storage.base_dir.startswith("/var/lib/ledgerline/")
    for stored in ("run_storage_data", "event_storage_data", "schedule_storage_data"):
        assert "psycopg2" in getattr(ref, stored).config_yaml
    assert "of-the-secret" not in str(ref)  # which is in the command of every run and step
