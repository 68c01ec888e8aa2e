"""Tests that docker/secrets writes the passwords of the stack, once."""

import base64
import re
import stat
import subprocess
from pathlib import Path

from benchmarks.stack.files import COMPOSE, DOCKER, LOGIN, variables, written_secrets


def test_every_required_variable_gets_a_secret(tmp_path: Path) -> None:
    required = {
        name
        for file in (COMPOSE, LOGIN)
        for name, rests in variables(file).items()
        if any(rest.startswith(":?") for rest in rests)
    }
    assert required == written_secrets(tmp_path / ".env").keys()


def test_secrets_are_random_long_and_fit_into_an_address(tmp_path: Path) -> None:
    first, second = written_secrets(tmp_path / "first"), written_secrets(tmp_path / "second")
    assert not set(first.values()) & set(second.values())
    assert len(set(first.values())) == len(first)
    for name, value in first.items():
        if name not in ("MLFLOW_ADMIN_AUTHORIZATION", "MLFLOW_WEBHOOK_KEY"):
            assert re.fullmatch("[0-9a-f]{48,}", value), name


def test_mlflow_gets_a_key_and_a_header_that_it_can_use(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    secrets = written_secrets(tmp_path / ".env")
    Fernet(secrets["MLFLOW_WEBHOOK_KEY"])
    scheme, _, encoded = secrets["MLFLOW_ADMIN_AUTHORIZATION"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == f"admin:{secrets['MLFLOW_ADMIN_PASSWORD']}"


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    written_secrets(tmp_path / ".env")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [".env"]


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PASSWORD=of the databases that are there\n")
    encoded = subprocess.run([DOCKER / "secrets", file], check=True, capture_output=True, text=True)
    assert file.read_text() == "POSTGRES_PASSWORD=of the databases that are there\n"
    assert "left as it is" in encoded.stderr


def test_a_link_to_nowhere_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "on another disk")
    subprocess.run([DOCKER / "secrets", tmp_path / ".env"], check=True, capture_output=True)
    assert not (tmp_path / "on another disk").exists()
