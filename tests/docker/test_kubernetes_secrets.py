"""Tests that docker/kubernetes/secrets passes the passwords of docker/.env to the programs that need them."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.stack.files import DOCKER
from tests.docker.kubernetes_files import FOLDER, containers, kustomization, require_valid, values, workloads


@pytest.fixture
def file(tmp_path: Path) -> Path:
    subprocess.run([DOCKER / "secrets", tmp_path / ".env"], check=True, capture_output=True)
    return tmp_path / ".env"


def printed(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FOLDER / "secrets", file], capture_output=True, text=True, check=False)


def secrets(file: Path) -> dict[str, Any]:
    made = printed(file)
    assert (made.returncode, made.stderr) == (0, "")
    return {secret["metadata"]["name"]: secret for secret in yaml.safe_load_all(made.stdout)}


def plain(secret: Any) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_kubernetes_accepts_them_in_the_namespace_of_the_others(file: Path) -> None:
    for secret in secrets(file).values():
        require_valid(secret)
        assert secret["metadata"]["namespace"] == kustomization()["namespace"]


def test_every_program_has_the_secrets_it_needs_and_no_others(file: Path) -> None:
    made = {name: set(secret["data"]) for name, secret in secrets(file).items()}
    asked: dict[str, set[str]] = {name: set() for name in made}
    for workload in workloads().values():
        for container in containers(workload):
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    key = variable["valueFrom"]["secretKeyRef"]
                    asked[key["name"]].add(key["key"])
    whole = {
        source["secretRef"]["name"]
        for workload in workloads().values()
        for container in containers(workload)
        for source in container.get("envFrom", [])
        if "secretRef" in source
    }
    assert whole == {"postgres", "ledgerline"}
    for name in made.keys() - whole:
        assert made[name] == asked[name]
    assert made["postgres"] == {"POSTGRES_PASSWORD", "DAGSTER_POSTGRES_PASSWORD", "MLFLOW_POSTGRES_PASSWORD"}
    assert made["ledgerline"] == {"LEDGERLINE_WEBHOOK_SECRET"} >= asked["ledgerline"]
    assert values()["global"]["postgresqlSecretName"] in made


def test_they_are_the_passwords_of_the_file(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    known = {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
    made = secrets(file)
    for name, secret in made.items():
        if name != "dagster-postgresql":
            assert plain(secret).items() <= known.items()
    # The name that Dagster's chart requires.
    assert plain(made["dagster-postgresql"]) == {"postgresql-password": known["DAGSTER_POSTGRES_PASSWORD"]}


def test_runs_have_optional_secrets_if_they_exist(file: Path) -> None:
    besides = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "a/b+c=", "OPENAI_API_KEY": "sk-1"}
    with file.open("a") as opened:
        opened.writelines(f"{name}={value}\n" for name, value in besides.items())
        opened.write("SOMETHING_ELSE=1\nAWS_PROFILE=\n")
    made = secrets(file)
    assert plain(made["ledgerline"]).items() >= besides.items()
    assert plain(made["ledgerline"]).keys() - besides.keys() == {"LEDGERLINE_WEBHOOK_SECRET"}
    assert "SOMETHING_ELSE" not in str(made)


def test_without_a_password_nothing_is_printed(file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text().replace("LEDGERLINE_SERVING_TOKENS=", "NO_TOKENS="))
    made = printed(file)
    assert (made.returncode != 0, made.stdout) == (True, "")
    assert "LEDGERLINE_SERVING_TOKENS" in made.stderr
    assert "docker/secrets writes it" in printed(tmp_path / "nothing").stderr
