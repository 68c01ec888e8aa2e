"""Tests the same bodies with this service, `mlflow models serve` and MLServer, and compares the responses."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.serving.conftest import Running, ServedModels, running, serving_settings
from tests.serving.echo_versions import echo_version, save
from tests.serving.inference_cases import INFERENCE_CASES
from tests.serving.mlflow_cases import MLFLOW_CASES
from tests.serving.peer_servers import MLSERVER, mlflow_serving, mlserver_serving
from tests.serving.scoring_bodies import ANSWERED, OPTIONAL, REFUSED, TYPES, Answer, Body, Case
from tests.serving.scoring_differences import DIFFERENCES

SECONDS = 60.0
CASES = [*MLFLOW_CASES, *INFERENCE_CASES]
PAGE = Path(__file__).parents[2] / "docs/reference/other-servers.md"

all_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
mlflow_cases = pytest.mark.parametrize("case", MLFLOW_CASES, ids=lambda case: case.name)
inference_cases = pytest.mark.parametrize("case", INFERENCE_CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def service(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """This service with the models."""
    folder = tmp_path_factory.mktemp("ours")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    models = ServedModels(f"sqlite:///{folder}/mlflow.db", folder)
    for name, types in TYPES.items():
        models.serve(echo_version(models, name, types, OPTIONAL[name]))
    names = ",".join(TYPES)
    served = {"LEDGERLINE_SERVING_MODELS": names, "LEDGERLINE_SERVING_UNPICKLE": names}
    with running(serving_settings(folder / "home", models.uri, **served)) as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the models."""
    folders = {name: tmp_path_factory.mktemp("models") / name for name in TYPES}
    for name, folder in folders.items():
        save(folder, TYPES[name], OPTIONAL[name])
    return folders


@pytest.fixture(scope="module")
def mlflow_urls(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`mlflow models serve` with the models."""
    with mlflow_serving(files, tmp_path_factory.mktemp("mlflow")) as urls:
        yield urls


@pytest.fixture(scope="module")
def mlserver_urls(
    files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """MLServer with the models."""
    if not MLSERVER.exists():
        pytest.skip("MLServer is not installed (make .venv/installed-mlserver; it needs Python 3.11 or 3.12)")
    with mlserver_serving(files, tmp_path_factory.mktemp("mlserver")) as urls:
        yield urls


@dataclass(frozen=True)
class Received:
    """A server's answer.

    Attributes:
        answer: As the table has it.
        text: As it came, for messages.
    """

    answer: Answer
    text: str


def sent(session: requests.Session, url: str, body: Body) -> Received:
    """Send a body with the headers that it has and no others."""
    request = session.prepare_request(requests.Request("POST", url, data=body.content))
    request.headers.pop("Content-Type", None)
    # MLServer ends the connection after a failure without a word.
    request.headers.update(
        {"Connection": "close"} | {name: value for name, value in body.headers.items() if value}
    )
    answer = session.send(request, timeout=SECONDS)
    if answer.status_code != 200:
        return Received(REFUSED, f"{answer.status_code} {answer.text}")
    content = answer.json()
    rows = content["outputs"][0]["data"] if body.is_inference else content["predictions"]
    return Received([json.loads(one) for one in rows], answer.text)


def require(received: Received, expected: Answer) -> None:
    if expected == ANSWERED:
        assert received.answer != REFUSED, received.text
    else:
        # JSON is compared, so that 1 is not true, and 1 is not 1.0.
        assert json.dumps(received.answer, sort_keys=True) == json.dumps(expected, sort_keys=True), (
            received.text
        )


@all_cases
def test_the_service_responds_as_in_the_table(service: Running, http: requests.Session, case: Case) -> None:
    name = case.body.model
    path = f"/v2/models/{name}/infer" if case.body.is_inference else f"/models/{name}/invocations"

    require(sent(http, f"{service.url}{path}", case.body), case.ours)


@mlflow_cases
def test_mlflow_models_serve_responds_as_in_the_table(
    mlflow_urls: dict[str, str], http: requests.Session, case: Case
) -> None:
    expected = case.ours if case.theirs is None else case.theirs

    require(sent(http, mlflow_urls[case.body.model], case.body), expected)


@inference_cases
def test_mlserver_responds_as_in_the_table(
    mlserver_urls: dict[str, str], http: requests.Session, case: Case
) -> None:
    expected = case.ours if case.theirs is None else case.theirs

    require(sent(http, mlserver_urls[case.body.model], case.body), expected)


def test_each_case_has_a_unique_name_and_the_reason_of_a_difference() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    for case in CASES:
        assert (case.theirs is not None) == bool(case.why), case.name
        assert case.theirs != case.ours, case.name


def test_each_difference_has_a_case_and_a_line_of_the_page() -> None:
    assert {case.why for case in CASES if case.why} == set(DIFFERENCES)
    table = re.findall(r"^\| .* \|$", PAGE.read_text().partition("## Types")[0], re.MULTILINE)[2:]
    assert table == [difference.line for difference in DIFFERENCES.values()]
