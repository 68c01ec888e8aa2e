"""Tests that the list of extras agrees with the distribution, and that missing extras are named."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ledgerline.dagster.agent import AgentResource
from ledgerline.dagster.executors import ExecutorError, executor_for
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from ledgerline.settings import extras
from ledgerline.settings.extras import EXTRAS, MissingExtraError
from tests.lock_files import FOLDER, added, layers, pins, text
from tests.lock_files import names as locked

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]
BUNDLES = {"all", "example"}  # of other extras, and of what the library does not import


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in requirements}


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No module of any extra can be found."""
    for module in {module for modules in EXTRAS.values() for module in modules}:
        monkeypatch.setitem(sys.modules, module, None)


def agent(memory: str | None = None) -> AgentResource:
    return AgentResource(provider="ollama", address="http://127.0.0.1:9", model="any", memory=memory)


def test_every_extra_is_declared_and_brings_its_modules() -> None:
    assert EXTRAS.keys() == DECLARED.keys() - BUNDLES
    owners = packages_distributions()
    for extra, modules in EXTRAS.items():
        brought = names(DECLARED[extra])
        if extra == "ui":
            brought |= {"Flask"}  # by mlflow, which has it for its pages alone
        for module in modules:
            assert {owner.replace("_", "-") for owner in owners[module]} & brought, module


def test_all_has_every_other_extra() -> None:
    (bundle,) = DECLARED["all"]
    listed = re.fullmatch(r"ledgerline-mlops\[(.+)\]", bundle)
    assert listed is not None
    assert listed[1].split(",") == sorted(DECLARED.keys() - {"all"})


def test_the_core_has_about_ten_dependencies_and_none_of_an_extra() -> None:
    core = names(PROJECT["dependencies"])
    assert len(core) <= 13
    assert not core & {name for requirements in DECLARED.values() for name in names(requirements)}


def test_no_package_is_missing_where_all_are_installed() -> None:
    assert {extra: extras.missing(extra) for extra in EXTRAS} == dict.fromkeys(EXTRAS, ())


@pytest.mark.usefixtures("gone")
def test_a_missing_extra_is_named_with_its_modules_and_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        extras.require("plots", "A picture")
    assert str(caught.value) == (
        "A picture needs the extra `plots`: matplotlib is not installed. "
        "Install it: pip install 'ledgerline-mlops[plots]'."
    )
    with pytest.raises(MissingExtraError, match=r"duckdb, httpx, .* are not .*: make agent\)\.$"):
        extras.require("agent", "An agent")


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    ("url", "extra"), [("s3://bucket/tables", "s3"), ("gs://bucket/tables", "gcs")], ids=["s3", "gs"]
)
def test_storage_in_a_bucket_names_its_extra(url: str, extra: str) -> None:
    for opened in (open_tables, open_records):
        with pytest.raises(PermanentFailure, match=rf"{url} needs .*ledgerline-mlops\[{extra}\]"):
            opened(url)


@pytest.mark.usefixtures("gone")
def test_a_missing_extra_of_an_agent_is_named_before_any_request() -> None:
    with pytest.raises(PermanentFailure, match=r"ledgerline-mlops\[agent\]"):
        agent().require()
    with pytest.raises(PermanentFailure, match=r"ledgerline-mlops\[agent\]"):
        agent(memory="/nowhere").open_memory()
    assert agent().open_memory() is None


@pytest.mark.usefixtures("gone")
def test_kubernetes_names_its_extra() -> None:
    with pytest.raises(ExecutorError, match=r"ledgerline-mlops\[kubernetes\]"):
        executor_for("kubernetes", 0, 1)


def test_serving_names_its_extra_before_it_listens(tmp_path: Path) -> None:
    """In a separate process, which has not imported it before."""
    code = (
        "import sys\n"
        "sys.modules['fastapi'] = None\n"
        "from ledgerline.serving import server, settings\n"
        f"server.serve(settings.ServingSettings.from_environment({{'LEDGERLINE_HOME': {str(tmp_path)!r}}}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Serving needs the extra `serving`: fastapi is not installed." in ended.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.lock")))
def test_lock_files_name_no_index_and_hash_everything(name: str) -> None:
    lines = text(name).splitlines()
    assert "://" not in text(name)
    assert all(line.startswith("-r ") for line in lines if line.startswith("-"))
    assert added(name)
    assert all(line.endswith("\\") for line in lines if "==" in line)


def test_a_lock_file_has_only_its_additions_to_the_layers_below() -> None:
    for name in (file.stem for file in FOLDER.glob("*.lock")):
        below = layers(name) - {name}
        assert not added(name) & set[str]().union(*(added(layer) for layer in below)), name


def test_the_main_job_is_installed_without_optional_packages() -> None:
    core = locked("core")
    for extra in EXTRAS.keys() - {"plots"}:
        # MLflow's client requires these; Dagster requires psutil, on Windows only.
        assert not names(DECLARED[extra]) & core - {"fastapi", "starlette", "uvicorn", "psutil"}, extra
    assert not {"boto3", "botocore", "google-cloud-storage", "kubernetes", "mlflow"} & core
    for extra in ("agent", "serving", "ui"):
        assert names(DECLARED[extra]) <= locked(extra)


def test_every_extra_is_in_the_image_of_the_pipelines() -> None:
    for extra in EXTRAS:
        assert names(DECLARED[extra]) <= locked("pipelines"), extra


def test_no_package_has_two_versions_on_one_machine() -> None:
    versions: dict[str, set[str]] = {}
    for pin in pins("bench"):
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate():
            versions.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
