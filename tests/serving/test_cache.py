"""Tests files of versions on the local disk: complete or absent, in separate folders, and limited."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from ledgerline.mlflow_store import model_files
from ledgerline.registry.versions import SHA256_TAG, Version
from ledgerline.serving.cache import KEPT_VERSIONS, LAST_ACTIVE, STALE_SECONDS, UNFINISHED, Cache
from ledgerline.testing.loopback_servers import Refusal, listening
from ledgerline.testing.waiting import wait_until
from tests.integration.proxies import Proxy
from tests.serving.conftest import MODEL, Serve, ServedModels

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 120.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder in which the cache has the versions of the model."""
    return tmp_path / "cache" / MODEL


@pytest.fixture(scope="module")
def models(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedModels:
    """A registry that is only read, or tests would take long."""
    folder = tmp_path_factory.mktemp("cached-models")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    return ServedModels(f"sqlite:///{folder}/mlflow.db", folder)


@pytest.fixture(scope="module")
def version(models: ServedModels) -> Version:
    return models.version()


@pytest.fixture
def client(models: ServedModels) -> "MlflowClient":
    return models.client


def named(version: Version, sha256: str | None) -> Version:
    """The same version with another recorded hash, or none."""
    others = {name: value for name, value in version.tags.items() if name != SHA256_TAG}
    return replace(version, tags=others if sha256 is None else others | {SHA256_TAG: sha256})


# Fetching


def test_files_are_downloaded_once_and_equal_the_registered_ones(
    cache: Cache, folder: Path, version: Version, client: "MlflowClient"
) -> None:
    found = cache.files(client, version)
    (found / "a trace of the first time").touch()
    again = cache.files(client, version)

    assert found == again == folder / version.tags[SHA256_TAG]
    assert (again / "a trace of the first time").exists()
    (found / "a trace of the first time").unlink()
    assert model_files.folder_sha256(found) == version.tags[SHA256_TAG]
    assert [path.name for path in folder.iterdir()] == [version.tags[SHA256_TAG]]


def test_an_interrupted_download_is_not_used(cache: Cache, folder: Path, mlflow_server: str) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    models = ServedModels(mlflow_server, None)
    version = models.version(f"broken-off-{time.time_ns()}")
    with listening(Proxy(target=mlflow_server)) as proxy:
        client = MlflowClient(proxy.url)
        # The last requested file does not arrive.
        proxy.refuses = lambda path: Refusal(403) if "MLmodel" in path else None
        with pytest.raises(MlflowException):
            cache.files(client, version)
        assert proxy.refused != []
        assert list(folder.iterdir()) == []

        proxy.reset()
        found = cache.files(client, version)

    assert model_files.folder_sha256(found) == version.tags[SHA256_TAG]


def test_unfinished_downloads_are_not_used_and_deleted_when_they_are_old(
    cache: Cache, folder: Path, version: Version, client: "MlflowClient"
) -> None:
    old, young = folder / f"{UNFINISHED}old", folder / f"{UNFINISHED}young"
    for left in (old, young):
        (left / "files").mkdir(parents=True)
        (left / "files" / "MLmodel").touch()
    os.utime(old, (0, time.time() - STALE_SECONDS - 60))

    found = cache.files(client, version)
    cache.clean()

    assert model_files.folder_sha256(found) == version.tags[SHA256_TAG]
    assert (old.exists(), young.exists(), found.exists()) == (False, True, True)


def test_dropped_files_are_downloaded_again(cache: Cache, version: Version, client: "MlflowClient") -> None:
    damaged = cache.files(client, version)
    (damaged / "MLmodel").write_text("damaged")

    cache.drop(version)

    assert not damaged.exists()
    assert model_files.folder_sha256(cache.files(client, version)) == version.tags[SHA256_TAG]


def test_a_disk_that_cannot_be_written_is_logged(
    tmp_path: Path, version: Version, client: "MlflowClient"
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        Cache(tmp_path / "file", MODEL).files(client, version)


# Names


@pytest.mark.parametrize(
    "sha256",
    ["../../elsewhere", "..", ".", "/etc", "", "A" * 64, f"{'a' * 64}\n", "a" * 63, LAST_ACTIVE, None],
)
def test_an_invalid_recorded_hash_names_no_folder(
    tmp_path: Path, version: Version, client: "MlflowClient", sha256: str | None
) -> None:
    cache, folder = Cache(tmp_path / "cache", MODEL), tmp_path / "cache" / MODEL
    (tmp_path / "elsewhere").mkdir()
    before = set(tmp_path.iterdir())
    strange = named(version, sha256)

    found = cache.files(client, strange)
    cache.drop(strange)
    cache.store(strange, "7")
    last_good = cache.last_active()

    assert found == folder / f"unrecorded-{version.number}"
    assert set(tmp_path.iterdir()) == before | {tmp_path / "cache"}
    assert last_good is not None
    assert last_good.folder.parent == folder


def test_a_version_without_a_recorded_hash_is_fetched_each_time(
    cache: Cache, version: Version, client: "MlflowClient"
) -> None:
    unrecorded = named(version, None)
    found = cache.files(client, unrecorded)
    (found / "of the first time").touch()

    assert not (cache.files(client, unrecorded) / "of the first time").exists()


@pytest.mark.parametrize("name", ["a model", "../model", "model%2F..", "Ünïcode"])
def test_each_model_has_a_separate_folder(tmp_path: Path, version: Version, name: str) -> None:
    Cache(tmp_path / "cache", name).store(version, "7")

    (folder,) = (tmp_path / "cache").iterdir()
    assert [path.name for path in folder.iterdir()] == [LAST_ACTIVE]


# Cleaning


def test_only_the_versions_that_were_used_last_are_kept(
    cache: Cache, folder: Path, version: Version, client: "MlflowClient"
) -> None:
    names = [f"{number:064x}" for number in range(KEPT_VERSIONS + 3)]
    for age, name in enumerate(reversed(names)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (0, time.time() - 60 * (age + 1)))
    used_again = names[0]  # the oldest
    cache.files(client, named(version, used_again))
    cache.store(version, "7")

    cache.clean()

    kept = {path.name for path in folder.iterdir()}
    assert kept == {LAST_ACTIVE, used_again, *names[-(KEPT_VERSIONS - 1) :]}


def test_an_empty_cache_has_nothing_to_clean(cache: Cache, folder: Path) -> None:
    cache.clean()

    assert not folder.exists()


# The version that was active last


def test_the_version_served_last_is_read_again(
    tmp_path: Path, cache: Cache, folder: Path, version: Version
) -> None:
    cache.store(replace(version, number=1), "6")
    cache.store(replace(version, number=2), "7")

    found = Cache(tmp_path / "cache", MODEL).last_active()

    assert found is not None
    assert (found.version, found.experiment_id) == (replace(version, number=2), "7")
    assert found.folder == folder / version.tags[SHA256_TAG]
    assert [path.name for path in folder.iterdir()] == [LAST_ACTIVE]


def test_a_new_cache_has_no_version_served_last(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.last_active() is None
    assert caplog.records == []


DAMAGED = [
    b"",
    b"{",
    b"{}",
    b"[]",
    b"7",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b'{"experiment_id": "7", "created_at": "yesterday"}',
    b'{"experiment_id": "7", "created_at": "2026-01-31T12:00:00+00:00", "unknown": 1}',
    (
        b'{"experiment_id": "7", "name": "m", "number": 1, "location": "", "run_id": "", "tags": [], '
        b'"created_at": "2026-01-31T12:00:00+00:00"}'
    ),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_the_last_version_is_ignored_and_logged(
    cache: Cache, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    (folder / LAST_ACTIVE).write_bytes(content)

    assert cache.last_active() is None
    (reported,) = [record.getMessage() for record in caplog.records]
    assert reported.startswith(f"{folder / LAST_ACTIVE} cannot be read, and is ignored: ")


def test_a_memory_that_cannot_be_opened_is_passed_over(cache: Cache, folder: Path) -> None:
    (folder / LAST_ACTIVE).mkdir(parents=True)

    assert cache.last_active() is None


def test_a_service_without_a_registry_outlives_a_damaged_memory(
    serve: Serve, mlflow_server: str, tmp_path: Path
) -> None:
    """The follower continues: once the registry is available, the version is active."""
    name = f"outliving-{time.time_ns()}"
    models = ServedModels(mlflow_server, None)
    models.serve(models.version(name))
    folder = tmp_path / "home" / "serving" / "models" / name
    folder.mkdir(parents=True)
    (folder / LAST_ACTIVE).write_text(json.dumps(7))
    proxy = Proxy(target=mlflow_server)
    proxy.start()
    proxy.stop()
    with serve(LEDGERLINE_SERVING_MODELS=name, MLFLOW_TRACKING_URI=proxy.url) as service:
        assert requests.get(f"{service.url}/ping", timeout=SECONDS).status_code == 503
        with listening(proxy):
            wait_until(
                lambda: requests.get(f"{service.url}/ping", timeout=SECONDS).status_code == 200,
                "the version is active",
            )
