"""Tests the service without a registry: at the start, and during an outage."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerline.testing.waiting import wait_until
from tests.integration.proxies import Proxy
from tests.serving.conftest import Running, ServedModels, running, serving_settings
from tests.serving.test_following import answers, ask, get


class TestWithoutARegistry:
    """The registry is an MLflow server behind a proxy that can be stopped."""

    @pytest.fixture
    def proxy(self, mlflow_server: str) -> Iterator[Proxy]:
        proxy = Proxy(target=mlflow_server)
        proxy.start()
        yield proxy
        if proxy.listens:
            proxy.stop()

    @pytest.fixture
    def models(self, mlflow_server: str) -> ServedModels:
        return ServedModels(mlflow_server, None)

    @pytest.fixture
    def name(self, request: pytest.FixtureRequest) -> str:
        return f"model of {request.node.name}"

    def test_the_active_version_stays_during_an_outage_and_polls_continue_after_it(
        self, proxy: Proxy, models: ServedModels, name: str, tmp_path: Path
    ):
        first, second = models.version(name, seed=1), models.version(name, seed=2)
        models.serve(first)
        settings = serving_settings(tmp_path, proxy.url, LEDGERLINE_SERVING_MODELS=name)
        with running(settings) as service:
            assert answers(service, first)
            proxy.stop()
            up = f'ledgerline_registry_up{{model="{name}"}}'
            wait_until(lambda: f"{up} 0.0" in get(service, "/metrics")[1], "the outage is noticed")
            assert answers(service, first)
            assert get(service, "/ready")[0] == 200
            models.serve(second)
            proxy.start()
            wait_until(lambda: answers(service, second), "version 2 answers")

    def test_a_start_without_it_serves_the_version_served_last(
        self, proxy: Proxy, models: ServedModels, name: str, tmp_path: Path
    ):
        first, second = models.version(name, seed=1), models.version(name, seed=2)
        models.serve(first)
        settings = serving_settings(tmp_path, proxy.url, LEDGERLINE_SERVING_MODELS=name)
        with running(settings):
            pass
        proxy.stop()
        with running(settings) as service:
            assert answers(service, first)
            model = get(service, "/model")[1]
            assert model["from_cache"]
            assert "does not respond" in wait_until(
                lambda: model_problem(service, name), "it is said that there is no registry"
            )
            models.serve(second)
            proxy.start()
            wait_until(lambda: answers(service, second), "version 2 answers")
            assert not get(service, "/model")[1]["from_cache"]

    def test_a_start_without_it_does_not_serve_changed_files(
        self, proxy: Proxy, models: ServedModels, name: str, tmp_path: Path
    ):
        models.serve(models.version(name, seed=1))
        settings = serving_settings(tmp_path, proxy.url, LEDGERLINE_SERVING_MODELS=name)
        with running(settings):
            pass
        proxy.stop()
        for file in settings.cache.rglob("requirements.txt"):
            file.write_text("evil\n")
        with running(settings) as service:
            assert ask(service)[0] == 503
            proxy.start()
            # Downloaded again: the changed file is not used.
            wait_until(lambda: ask(service)[:2] == (200, "1"), "version 1 answers")


def model_problem(service: Running, name: str) -> str:
    problem = get(service, "/ready")[1]["models"][name]["registry"]
    return problem if problem != "followed" else ""
