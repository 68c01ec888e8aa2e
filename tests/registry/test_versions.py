"""Tests versions in the registry, on a database and on a server: registered once, by alias, verified."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.mlflow_store import model_files, store
from ledgerline.mlflow_store.stored_model import ModelRefusedError
from ledgerline.registry import versions
from ledgerline.registry.promotion import Request
from ledgerline.registry.stages import PRODUCTION, STAGING
from ledgerline.registry.versions import SHA256_TAG, RegisteredModel, UnknownModelError, UnknownVersionError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    LogModel = Callable[[], LoggedModel]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of this test's own."""
    return request.node.name.replace("[", " on a ").removesuffix("]")


@pytest.fixture
def files_of(mlflow_server_folder: Path) -> "Callable[[LoggedModel], Path]":
    """Return the folder of a logged model's files, without the server."""

    def find(logged: "LoggedModel") -> Path:
        parts = urlsplit(logged.artifact_location)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        return mlflow_server_folder / "artifacts" / parts.path.lstrip("/")

    return find


def test_a_version_records_the_hash_of_its_files_and_its_run(
    client: "MlflowClient", log_model: "LogModel", name: str
):
    logged = log_model()

    version = RegisteredModel(client, name).register(logged.model_id, {"month": "2013-07-01"})

    with store.downloaded(client, logged.artifact_location) as files:
        sha256 = model_files.folder_sha256(files)
    assert abs(version.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert version == versions.Version(
        name=name,
        number=1,
        location=logged.artifact_location,
        run_id=logged.source_run_id or "",
        created_at=version.created_at,
        tags={"month": "2013-07-01", SHA256_TAG: sha256},
    )
    recorded = client.get_model_version(name, "1")
    assert recorded.tags == version.tags
    assert recorded.run_id == logged.source_run_id


def test_the_same_model_is_registered_once(client: "MlflowClient", log_model: "LogModel", name: str):
    logged = log_model()

    first = RegisteredModel(client, name).register(logged.model_id, {"month": "2013-07-01"})
    again = RegisteredModel(client, name).register(logged.model_id, {"month": "2013-08-01"})

    assert again == first
    assert len(client.search_model_versions(f"name = '{name}'")) == 1


def test_another_model_is_another_version(client: "MlflowClient", log_model: "LogModel", name: str):
    numbers = [RegisteredModel(client, name).register(log_model().model_id, {}).number for _ in range(2)]

    assert numbers == [1, 2]


def test_an_alias_moves_from_one_version_to_another(client: "MlflowClient", log_model: "LogModel", name: str):
    first, second = (RegisteredModel(client, name).register(log_model().model_id, {}) for _ in range(2))

    RegisteredModel(client, name).set_alias(STAGING, first.number)
    assert RegisteredModel(client, name).version_with_alias(STAGING) == first

    RegisteredModel(client, name).set_alias(STAGING, second.number)
    assert RegisteredModel(client, name).version_with_alias(STAGING) == second
    assert RegisteredModel(client, name).version_with_alias(PRODUCTION) is None


def test_an_unregistered_model_has_no_aliases(client: "MlflowClient"):
    assert RegisteredModel(client, "never registered").version_with_alias(STAGING) is None


def test_a_loaded_version_predicts_as_the_registered_model(
    client: "MlflowClient", log_model: "LogModel", name: str, model: Any, inputs: "pd.DataFrame"
):
    registered = RegisteredModel(client, name)
    registered.set_alias(STAGING, registered.register(log_model().model_id, {}).number)

    found = RegisteredModel(client, name).version_with_alias(STAGING)
    assert found is not None
    loaded = RegisteredModel(client, name).load(found)

    np.testing.assert_array_equal(loaded.answer(inputs), model.predict_proba(inputs))


def test_a_version_with_one_changed_byte_is_refused(
    client: "MlflowClient",
    log_model: "LogModel",
    name: str,
    files_of: "Callable[[LoggedModel], Path]",
):
    logged = log_model()
    version = RegisteredModel(client, name).register(logged.model_id, {})
    (file,) = files_of(logged).glob("*.skops")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(ModelRefusedError, match="version 1 is not what was registered") as error:
        RegisteredModel(client, version.name).load(version)

    assert version.tags[SHA256_TAG] in str(error.value)


def test_a_version_with_an_added_file_is_refused(
    client: "MlflowClient",
    log_model: "LogModel",
    name: str,
    files_of: "Callable[[LoggedModel], Path]",
):
    logged = log_model()
    version = RegisteredModel(client, name).register(logged.model_id, {})
    (files_of(logged) / "code.py").write_text("print('gotcha')")

    with pytest.raises(ModelRefusedError, match="is not what was registered"):
        RegisteredModel(client, version.name).load(version)


def test_a_version_without_a_recorded_hash_is_refused(
    client: "MlflowClient", log_model: "LogModel", name: str
):
    version = RegisteredModel(client, name).register(log_model().model_id, {})

    with pytest.raises(ModelRefusedError, match="recorded sha256 is missing"):
        RegisteredModel(client, version.name).load(replace(version, tags={}))


def test_a_step_that_loads_a_changed_model_fails_for_good(
    client: "MlflowClient", tracking_uri: str, log_model: "LogModel", name: str
):
    registry = ModelRegistryResource(tracking_uri=tracking_uri)
    version = registry.model(name).register(log_model().model_id, {})
    registry.model(name).stage(version.number, Request("the trainer", "", "", "a request"))
    found = registry.model(name).version_with_alias(STAGING)
    assert found is not None
    assert found.number == version.number

    with pytest.raises(PermanentFailure, match="is not what was registered") as failure:
        registry.model(name).load(replace(version, tags={SHA256_TAG: "0" * 64}))

    assert not failure.value.allow_retries
    assert "move the alias" in failure.value.remedy


def test_a_version_registered_by_hand_works_and_has_no_metadata(
    client: "MlflowClient", log_model: "LogModel", name: str
):
    client.create_registered_model(name)
    logged = log_model()
    client.create_model_version(
        name, logged.artifact_location, logged.source_run_id, model_id=logged.model_id
    )
    client.set_registered_model_alias(name, STAGING, "1")

    (version,) = RegisteredModel(client, name).versions()

    assert (
        version
        == RegisteredModel(client, name).version(1)
        == RegisteredModel(client, name).version_with_alias(STAGING)
    )
    assert version.number == 1
    assert version.tags == {}
    with pytest.raises(ModelRefusedError, match="recorded sha256 is missing"):
        RegisteredModel(client, version.name).load(version)


def test_versions_are_listed_in_the_order_of_their_numbers(
    client: "MlflowClient", log_model: "LogModel", name: str
):
    client.create_registered_model(name)
    logged = log_model()
    for _ in range(11):
        client.create_model_version(
            name, logged.artifact_location, logged.source_run_id, model_id=logged.model_id
        )
    client.delete_model_version(name, "4")

    assert [version.number for version in RegisteredModel(client, name).versions()] == [
        1,
        2,
        3,
        *range(5, 12),
    ]


def test_a_missing_version_is_named(client: "MlflowClient", log_model: "LogModel", name: str):
    RegisteredModel(client, name).register(log_model().model_id, {})

    with pytest.raises(UnknownVersionError, match=f"^{re.escape(name)} has no version 2"):
        RegisteredModel(client, name).version(2)
    with pytest.raises(UnknownVersionError):
        RegisteredModel(client, name).set_version_tags(2, {"a": "b"})
    with pytest.raises(UnknownModelError, match="'never registered'"):
        RegisteredModel(client, "never registered").alias_state()


def test_tags_are_set_and_removed(client: "MlflowClient", log_model: "LogModel", name: str):
    RegisteredModel(client, name).register(log_model().model_id, {"stays": "1", "goes": "1", "changes": "1"})

    RegisteredModel(client, name).set_version_tags(
        1, {"goes": None, "changes": "2", "comes": "1", "never was": None}
    )

    tags = dict(RegisteredModel(client, name).version(1).tags)
    del tags[SHA256_TAG]
    assert tags == {"stays": "1", "changes": "2", "comes": "1"}
