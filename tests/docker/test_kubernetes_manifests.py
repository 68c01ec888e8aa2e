"""Tests the manifests: accepted by Kubernetes, confined, and equal to the services of Compose."""

import re
import shutil
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from benchmarks.stack.files import DOCKER, PROJECT, services
from ledgerline.serving.app import OPEN
from ledgerline.serving.server import END_SECONDS
from tests.docker.kubernetes_files import (
    FOLDER,
    PART,
    containers,
    kustomization,
    manifests,
    of_kind,
    pod_of,
    require_confined,
    require_valid,
    values,
    variables_of,
    workloads,
)

SETTINGS = (PROJECT / ".env.example").read_text()
NAMESPACE = "ledgerline"

each_workload = pytest.mark.parametrize("name", workloads())

# The pods of Dagster's chart, and the runs.
OF_THE_CHART = {"webserver", "daemon", "code", "run"}


def container_of(name: str) -> Any:
    return next(one for one in pod_of(workloads()[name])["containers"] if one["name"] == name)


def probes(container: Any) -> dict[str, Any]:
    return {
        kind: container[kind]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
        if kind in container
    }


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda manifest: f"{manifest['kind']}/{manifest['metadata']['name']}"
)
def test_kubernetes_accepts_every_key_of_every_manifest(manifest: Any) -> None:
    require_valid(manifest)
    if manifest["kind"] != "Namespace":
        assert manifest["metadata"]["namespace"] == NAMESPACE


def test_everything_in_the_folder_is_applied() -> None:
    files = {f"kubernetes/{file.name}" for file in FOLDER.glob("*.yaml")}
    assert files - {"kubernetes/dagster-values.yaml"} == set(kustomization()["resources"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_configurations_are_those_of_compose_and_a_change_of_one_is_rolled_out() -> None:
    generated = {
        name: config["data"] for name, config in of_kind("ConfigMap").items() if name != "ledgerline"
    }
    assert len(generated) == 3
    for name, files in generated.items():
        assert re.search("-[a-z0-9]{10}$", name)
        for file, text in files.items():
            source = next(path for path in (DOCKER / file, DOCKER / "postgres" / file) if path.is_file())
            assert text == source.read_text()
    mounted = {
        volume["configMap"]["name"]
        for workload in workloads().values()
        for volume in pod_of(workload).get("volumes", [])
        if "configMap" in volume
    }
    assert mounted == generated.keys() | {"dagster-instance"}  # the latter is made by the chart


@each_workload
def test_no_process_can_gain_privileges(name: str) -> None:
    pod = pod_of(workloads()[name])
    require_confined(pod)
    # PostgreSQL's image has a user of its own.
    assert pod["securityContext"]["runAsUser"] == (999 if name == "postgres" else 10001)
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "ledgerline"


def test_pods_with_more_rights_are_refused_by_the_namespace() -> None:
    labels = of_kind("Namespace")[NAMESPACE]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@each_workload
def test_no_variable_is_derived_from_the_names_of_services(name: str) -> None:
    # A service called mlflow would set MLFLOW_PORT, which is an option of MLflow's server.
    assert pod_of(workloads()[name])["enableServiceLinks"] is False


@each_workload
def test_images_are_those_of_compose(name: str) -> None:
    known = {re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]) for service in services().values()}
    for default in services()["jaeger"]["build"]["args"].values():
        known.add(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", default))
    for container in containers(workloads()[name]):
        assert container["image"] in known


@pytest.mark.parametrize("name", ["mlflow", "observer", "serving"])
def test_programs_are_started_as_by_compose(name: str) -> None:
    dockerfile = (DOCKER / "serving.Dockerfile").read_text()
    command = container_of(name)["command"]
    assert (
        command == services()[name].get("command")
        or f"CMD {str(command).replace(chr(39), chr(34))}" in dockerfile
    )


@pytest.mark.parametrize("name", ["jaeger", "otel-collector", "mlflow"])
def test_variables_are_those_of_compose(name: str) -> None:
    here = variables_of(container_of(name))
    there = services()[name]["environment"]
    # Kubernetes sends probes from outside; and the password is put into the address here.
    only_here = {"JAEGER_HEALTH_ENDPOINT", "OTELCOL_HEALTH_ENDPOINT", "MLFLOW_POSTGRES_PASSWORD"}
    only_there = {"JAEGER_PROMETHEUS_URL", "JAEGER_UI_FILE"}  # of its own Prometheus
    assert here.keys() - only_here == there.keys() - only_there
    for key in here.keys() - only_here:
        if "${" not in there[key]:
            assert here[key] == there[key]


def test_mlflows_database_has_the_experiment_of_the_collector() -> None:
    init = pod_of(workloads()["mlflow"])["initContainers"][0]
    assert init["command"] == services()["mlflow-database"]["command"]
    declared, collector = variables_of(init), variables_of(container_of("otel-collector"))
    assert declared["OTELCOL_MLFLOW_EXPERIMENT_ID"] == collector["OTELCOL_MLFLOW_EXPERIMENT_ID"]
    assert (
        declared["MLFLOW_BACKEND_STORE_URI"]
        == variables_of(container_of("mlflow"))["MLFLOW_BACKEND_STORE_URI"]
    )


def test_every_setting_of_this_project_is_one_that_exists() -> None:
    known = set(re.findall(r"^# (\w+)=", SETTINGS, re.MULTILINE))
    given = set(of_kind("ConfigMap")["ledgerline"]["data"])
    for workload in workloads().values():
        for container in containers(workload):
            given |= {name for name in variables_of(container) if name.startswith(("LEDGERLINE_", "OTEL_"))}
    assert given <= known


@pytest.mark.parametrize("name", ["jaeger", "otel-collector"])
def test_every_variable_given_to_a_server_is_one_of_its_configuration(name: str) -> None:
    asked = "".join(file.read_text() for file in DOCKER.glob(f"{name}*.yaml"))
    for variable in variables_of(container_of(name)):
        assert f"${{env:{variable}:-" in asked


def test_the_settings_can_be_read_and_are_those_of_a_cluster() -> None:
    from ledgerline.dagster.settings import Settings
    from ledgerline.serving.settings import ServingSettings

    declared = of_kind("ConfigMap")["ledgerline"]["data"]
    home = {"LEDGERLINE_HOME": "/var/lib/ledgerline"}  # of the images
    settings = Settings.from_environment(declared | home)
    assert (settings.executor, settings.observer) == ("kubernetes", "service")
    assert settings.request_log == ServingSettings.from_environment(declared | home).request_log
    assert "LEDGERLINE_HOME=/var/lib/ledgerline" in (DOCKER / "pipelines.Dockerfile").read_text()


def test_no_secret_is_in_a_manifest() -> None:
    assert of_kind("Secret") == {}
    for workload in workloads().values():
        for container in containers(workload):
            for name, value in variables_of(container).items():
                if re.search("PASSWORD|SECRET|TOKEN|AUTHORIZATION|_KEY$", name):
                    assert value is None
    assert "@" not in str(of_kind("ConfigMap")["ledgerline"]["data"])


@each_workload
def test_mounts_are_of_volumes_and_volumes_of_claims_that_are_there(name: str) -> None:
    workload = workloads()[name]
    own = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    volumes = {volume["name"]: volume for volume in pod_of(workload).get("volumes", [])}
    mounted = {mount["name"] for container in containers(workload) for mount in container["volumeMounts"]}
    assert mounted == own | volumes.keys()
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes.values()
        if "persistentVolumeClaim" in volume
    }
    assert claims <= of_kind("PersistentVolumeClaim").keys()


def test_shared_files_of_pods_are_on_shared_volumes() -> None:
    modes = {name: claim["spec"]["accessModes"] for name, claim in of_kind("PersistentVolumeClaim").items()}
    assert modes == {"state": ["ReadWriteMany"], "requests": ["ReadWriteMany"], "mlflow": ["ReadWriteOnce"]}
    # One pod at a time has the latter.
    assert workloads()["mlflow"]["spec"]["strategy"] == {"type": "Recreate"}


@each_workload
def test_every_probe_requests_an_existing_page_of_an_open_port(name: str) -> None:
    container = container_of(name)
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    assert probes(container)
    for probe in probes(container).values():
        if "exec" in probe:
            continue
        path, port = probe["httpGet"]["path"], ports[probe["httpGet"]["port"]]
        if name == "serving":
            assert OPEN.fullmatch(path)  # without a token
            assert port == 8080
        elif name == "mlflow":
            from mlflow.server.security_utils import HEALTH_ENDPOINTS

            assert path in HEALTH_ENDPOINTS  # whatever the name of the host
            assert str(port) in container["command"]
        else:
            asked = f":{port}{path}"
            assert any(part.endswith(asked) for part in services()[name]["healthcheck"]["test"])
            assert f"0.0.0.0:{port}" in variables_of(container).values()


def test_probes_of_serving_request_existing_pages() -> None:
    source = (PROJECT / "ledgerline" / "serving" / "app.py").read_text()
    for probe in probes(container_of("serving")).values():
        assert f'@app.get("{probe["httpGet"]["path"]}"' in source


def test_programs_that_compose_watches_by_a_command_are_watched_by_the_same() -> None:
    for name in ("postgres", "observer"):
        command = services()[name]["healthcheck"]["test"][1:]
        for probe in probes(container_of(name)).values():
            assert probe["exec"]["command"][-1].strip() == command[-1].strip()
            assert probe["exec"]["command"][:-1] == command[:-1]


def test_every_service_leads_to_a_port_of_a_pod() -> None:
    for name, service in of_kind("Service").items():
        assert service["spec"]["selector"] == workloads()[name]["spec"]["template"]["metadata"]["labels"]
        ports = {port["name"]: port["containerPort"] for port in container_of(name)["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port.get("targetPort", port["name"])] == port["port"]


def let_in(part: str) -> set[tuple[str, int]]:
    """Return the sources that may connect, by port."""
    found = set()
    for policy in of_kind("NetworkPolicy").values():
        if policy["spec"]["podSelector"].get("matchLabels") != {PART: part}:
            continue
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                for peer in rule.get("from", [{}]):
                    selector = peer.get("podSelector", {})
                    parts = list(selector.get("matchLabels", {}).values())
                    for expression in selector.get("matchExpressions", []):
                        assert (expression["key"], expression["operator"]) == (PART, "In")
                        parts += expression["values"]
                    found |= {(other, port["port"]) for other in parts or ["others"]}
    return found


def test_servers_accept_their_clients_and_no_server_without_a_policy_is_needed() -> None:
    declared = of_kind("ConfigMap")["ledgerline"]["data"]
    settings = {value for value in declared.values() if not value.startswith("http://127.0.0.1")}
    asked = set()
    for name, workload in workloads().items():
        for container in containers(workload):
            addresses = {value for value in variables_of(container).values() if value}
            if container.get("envFrom") and name != "postgres":
                addresses |= settings
            for address in addresses:
                if "://" in address and (host := urlsplit(address).hostname) in workloads():
                    asked.add((host, name, urlsplit(address).port))
    asked |= {("mlflow", part, 5000) for part in ("code", "run")}
    asked |= {("postgres", part, 5432) for part in ("code", "run", "webserver", "daemon", "observer")}
    assert {("jaeger", "otel-collector", 4318), ("mlflow", "serving", 5000)} <= asked
    for host, name, port in asked:
        assert (name, port) in let_in(host)


def test_connections_are_refused_unless_they_are_declared() -> None:
    assert of_kind("NetworkPolicy")["nobody"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    parts = workloads().keys() | OF_THE_CHART
    for name in parts:
        for other, port in let_in(name):
            assert other in parts | {"others"}
            if name in workloads():
                assert port in {one["containerPort"] for one in container_of(name)["ports"]}
    assert {name for name in parts if ("others", 8080) in let_in(name)} == {"serving"}
    assert let_in("observer") == let_in("run") == set()


def test_only_programs_that_start_jobs_have_access_to_kubernetes() -> None:
    (binding,) = of_kind("RoleBinding").values()
    assert {subject["name"] for subject in binding["subjects"]} == {"dagster", "dagster-runs"}
    assert {subject["namespace"] for subject in binding["subjects"]} == {NAMESPACE}
    (role,) = of_kind("Role").values()
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {
        "jobs",
        "jobs/status",
        "pods",
        "pods/log",
        "events",
    }
    assert not any("*" in part for rule in role["rules"] for part in (*rule["verbs"], *rule["resources"]))
    accounts = of_kind("ServiceAccount")
    without = {
        name for name, account in accounts.items() if account.get("automountServiceAccountToken") is False
    }
    assert without == {"ledgerline", "dagster-code"}
    assert accounts.keys() - without == {"dagster", "dagster-runs"}


def test_there_is_one_observer_at_most() -> None:
    spec = workloads()["observer"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_request_is_not_lost_when_a_pod_of_serving_ends() -> None:
    pod = pod_of(workloads()["serving"])
    pause = container_of("serving")["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container_of("serving")["readinessProbe"]
    assert pause > readiness["periodSeconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + END_SECONDS
    assert workloads()["serving"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_serving_is_scaled_and_never_evicted_as_a_whole() -> None:
    (scaler,) = of_kind("HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "serving",
    }
    assert scaler["spec"]["minReplicas"] >= 2
    assert "replicas" not in workloads()["serving"]["spec"]
    (budget,) = of_kind("PodDisruptionBudget").values()
    assert budget["spec"]["selector"] == workloads()["serving"]["spec"]["selector"]
    for spread in pod_of(workloads()["serving"])["topologySpreadConstraints"]:
        assert spread["labelSelector"] == workloads()["serving"]["spec"]["selector"]


def test_the_collectors_volume_holds_both_queues() -> None:
    (claim,) = workloads()["otel-collector"]["spec"]["volumeClaimTemplates"]
    size = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * 1024**3
    queue = re.search(r"OTELCOL_QUEUE_BYTES:-(\d+)", (DOCKER / "otel-collector.yaml").read_text())
    assert queue is not None
    assert size > 3 * int(queue[1])


def test_the_observer_has_the_instance_that_the_chart_writes() -> None:
    volumes = {volume["name"]: volume for volume in pod_of(workloads()["observer"])["volumes"]}
    assert volumes["instance"]["configMap"]["name"] == "dagster-instance"
    mount = next(one for one in container_of("observer")["volumeMounts"] if one["name"] == "instance")
    assert mount["mountPath"] == f"{values()['global']['dagsterHome']}/dagster.yaml"
    assert (
        f"DAGSTER_HOME={values()['global']['dagsterHome']}" in (DOCKER / "pipelines.Dockerfile").read_text()
    )


def test_files_are_read_without_kubectl_as_with_it() -> None:
    from tests.docker import kubernetes_files

    def names(found: list[Any]) -> set[tuple[str, str]]:
        return {(one["kind"], re.sub("-[a-z0-9]{10}$", "", one["metadata"]["name"])) for one in found}

    plain = [*kubernetes_files._one_by_one(), *kubernetes_files._generated()]
    assert names(plain) == names(manifests())
    for manifest in yaml.safe_load_all(yaml.safe_dump_all(plain)):
        require_valid(manifest)
