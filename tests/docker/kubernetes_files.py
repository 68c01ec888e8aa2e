"""Reads the files of docker/kubernetes/, by kustomize where it is installed, otherwise one by one."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml

from benchmarks.stack.files import DOCKER

FOLDER = DOCKER / "kubernetes"
# The oldest version with everything that is used, and the newest with available schemas.
VERSIONS = ("1.30", "1.37")
PART = "ledgerline/part"


@functools.cache
def kustomization() -> Any:
    return yaml.safe_load((DOCKER / "kustomization.yaml").read_text())


@functools.cache
def manifests() -> list[Any]:
    """Everything that is applied."""
    kubectl = shutil.which("kubectl")
    if kubectl is not None:
        made = subprocess.run([kubectl, "kustomize", DOCKER], capture_output=True, text=True, check=True)
        assert made.stderr == ""
        return list(yaml.safe_load_all(made.stdout))
    return [*_one_by_one(), *_generated()]


def _one_by_one() -> Iterator[Any]:
    tags = {image["name"]: image["newTag"] for image in kustomization()["images"]}
    for name in kustomization()["resources"]:
        for manifest in yaml.safe_load_all((DOCKER / name).read_text()):
            for container in containers(manifest):
                if container["image"] in tags:
                    container["image"] += f":{tags[container['image']]}"
            if manifest["kind"] != "Namespace":
                manifest["metadata"]["namespace"] = kustomization()["namespace"]
            yield manifest


def _generated() -> Iterator[Any]:
    for generator in kustomization()["configMapGenerator"]:
        files = [DOCKER / name for name in generator["files"]]
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": generator["name"], "namespace": kustomization()["namespace"]},
            "data": {file.name: file.read_text() for file in files},
        }


def of_kind(*kinds: str) -> dict[str, Any]:
    """Manifests by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests() if manifest["kind"] in kinds}


def workloads() -> dict[str, Any]:
    return of_kind("Deployment", "StatefulSet")


def pod_of(manifest: Any) -> Any:
    return manifest["spec"]["template"]["spec"]


def containers(manifest: Any) -> list[Any]:
    """Return the containers of a manifest's pods; empty if it has no pods."""
    if "template" not in manifest.get("spec", {}):
        return []
    pod = pod_of(manifest)
    return [*pod.get("initContainers", []), *pod["containers"]]


def variables_of(container: Any) -> dict[str, str | None]:
    """Return the variables of a container; None for a value from a Secret."""
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


@functools.cache
def values() -> Any:
    """Return the values of Dagster's chart."""
    return yaml.safe_load((FOLDER / "dagster-values.yaml").read_text())


def require_valid(resource: Any) -> None:
    """Return Kubernetes' schemas, without the permission of additional keys."""
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


def require_confined(pod: Any) -> None:
    """Assert that a pod and each of its containers have no more rights than they need."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"]
    assert context["runAsUser"] >= 999
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod.get(key)
    assert not [volume for volume in pod.get("volumes", []) if volume.get("hostPath")]
