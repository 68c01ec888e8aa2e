"""The wheel, installed without extras into an environment that has nothing else, is a whole product.

The environment has the versions of the lock file, and nothing of what the tests themselves are run with.
"""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ledgerline.mlflow_runs.tags import RUN_ID
from ledgerline.settings.extras import EXTRAS
from ledgerline.settings.version import VERSION
from ledgerline.testing.loopback_servers import listening
from ledgerline.testing.otlp_receivers import Receiver
from tests.integration import bakery
from tests.project import PROJECT_ROOT

LOCK = PROJECT_ROOT / "requirements" / "core.lock"

# Imports each module of the library by itself, and prints those that cannot be, with what they miss.
IMPORT_ALL = """
import importlib, json, pkgutil
import ledgerline
missing = {}
for module in pkgutil.walk_packages(ledgerline.__path__, "ledgerline."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing[module.name] = error.name
print(json.dumps(missing))
"""

# The modules that cannot be imported without the extra of the part that they are of.
OF_EXTRAS = {
    "agent": r"ledgerline\.agent\.transport",
    "kubernetes": r"ledgerline\.dagster\.kubernetes_steps",
    "postgres": r"ledgerline\.ledger\.storages\.postgres",
    "serving": r"ledgerline\.serving\..+",
    "ui": r"ledgerline\.cli\.dev_servers",
}
# Modules that the packages of an extra install and import.
BROUGHT = {"agent": {"httpcore"}, "serving": {"starlette"}}


@dataclass(frozen=True)
class Installed:
    """The environment that the wheel is installed in, and the folder where its commands are typed."""

    wheel: Path
    python: Path
    folder: Path

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with no variable but these."""
        program, *rest = arguments
        return subprocess.run(
            [self.python.with_name(str(program)), *rest],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def printed(self, code: str) -> str:
        """Run a piece of Python, and return what it prints."""
        ended = self.run("python", "-c", code)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def install(wheel: Path, environment: Path) -> None:
    """Install a wheel with the versions and hashes of the lock file; offline, if uv has them all."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", environment, "--constraint", LOCK, wheel]
    offline = subprocess.run([*command, "--offline"], capture_output=True, check=False)
    if offline.returncode != 0:
        subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=PROJECT_ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    install(wheel, folder / "environment")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(wheel, folder / "environment" / "bin" / "python", elsewhere)


def test_the_wheel_holds_the_library_and_nothing_of_the_example(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert installed.wheel.name == f"ledgerline_mlops-{VERSION}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {
        "ledgerline",
        f"ledgerline_mlops-{VERSION}.dist-info",
    }
    assert "ledgerline/py.typed" in names
    # The other files that the library reads at run time are beside it.
    beside = {
        file.relative_to(PROJECT_ROOT).as_posix()
        for file in (PROJECT_ROOT / "ledgerline").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if name.startswith("ledgerline/")} == beside


def test_only_the_core_is_installed(installed: Installed) -> None:
    code = "from importlib.util import find_spec; print([name for name in {} if find_spec(name)])"
    modules = [module for modules in EXTRAS.values() for module in modules]
    # FastAPI and uvicorn come with MLflow's client.
    found = installed.printed(code.format([*modules, "assets", "pipelines", "resources", "tests"]))
    assert set(re.findall(r"'(\w+)'", found)) <= {"fastapi", "uvicorn"}


def test_importing_the_library_loads_nothing_else(installed: Installed) -> None:
    def modules(code: str) -> set[str]:
        return set(installed.printed(f"{code}; import sys; print(*sys.modules)").split())

    assert modules("import ledgerline") - modules("pass") == {"ledgerline"}


def test_every_module_of_the_core_can_be_imported(installed: Installed) -> None:
    missing = json.loads(installed.printed(IMPORT_ALL).splitlines()[-1])
    for module, needed in missing.items():
        extra = next((extra for extra, pattern in OF_EXTRAS.items() if re.fullmatch(pattern, module)), None)
        assert extra is not None, f"{module} is of the core and needs {needed}"
        assert needed in {*EXTRAS[extra], *BROUGHT.get(extra, ())}, f"{module} needs {needed}"


@pytest.mark.parametrize(
    ("command", "extra"), [("serve", "serving"), ("dev", "ui")], ids=["serving", "pages"]
)
def test_a_command_whose_extra_is_missing_names_it(
    installed: Installed, tmp_path: Path, command: str, extra: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.ledgerline]\ndefinitions = "bakery"\nmodels = ["bread"]\n'
    )
    ended = installed.run(
        "ledgerline", command, LEDGERLINE_HOME=str(tmp_path / "state"), LEDGERLINE_PROJECT=str(tmp_path)
    )
    assert ended.returncode == 2
    assert f"needs the extra `{extra}`" in ended.stderr
    assert f"pip install 'ledgerline-mlops[{extra}]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_it_observes_a_dagster_instance_without_the_library(installed: Installed, tmp_path: Path) -> None:
    home = tmp_path / "bakery"
    home.mkdir()
    (home / "dagster.yaml").touch()
    baked = installed.run("python", bakery.__file__, home)
    run_ids = baked.stdout.split()
    assert len(run_ids) == 2, baked.stderr

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with listening(Receiver()) as receiver:
        ended = installed.run(
            "ledgerline",
            *("observe", "--all", "--dagster-home", home),
            LEDGERLINE_HOME=str(tmp_path / "state"),
            MLFLOW_TRACKING_URI=store,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        )
        assert ended.returncode == 0, ended.stderr
        traces = [receiver.trace(run_id) for run_id in run_ids]
    assert "2 runs exported." in ended.stdout

    for trace in traces:
        assert {"flour", "bread", "bread_crusty"} <= {span.name for span in trace.spans}
    assert [any(span.failed for span in trace.spans) for trace in traces] == [False, True]

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("bakery")
    assert experiment is not None
    runs = {run.data.tags[RUN_ID]: run for run in client.search_runs([experiment.experiment_id])}
    assert [runs[run_id].info.status for run_id in run_ids] == ["FINISHED", "FAILED"]
    files = {file.path for file in client.list_artifacts(runs[run_ids[0]].info.run_id)}
    assert "lineage" in files
    assert "timeline.png" not in files  # the extra `plots` is not installed

    printed = installed.run(
        "ledgerline", "trace", run_ids[1], "--dagster-home", home, LEDGERLINE_HOME=str(tmp_path / "state")
    )
    assert printed.returncode == 0, printed.stderr
    assert "burnt" in printed.stdout
