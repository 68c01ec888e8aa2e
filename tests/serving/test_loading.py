"""Tests versions of several models that are loaded by several threads at the same moment."""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ledgerline.mlflow_store import store
from ledgerline.serving.loaded import load
from tests.serving.conftest import ServedModels

THREADS, LOADS = 4, 5


@pytest.fixture
def crowded() -> Iterator[None]:
    """Let threads take turns wherever they can: also in the middle of C code that makes objects."""

    def collected(phase: str, info: dict[str, int]) -> None:
        # Code of Python, in which another thread may take its turn.
        for _ in range(20):
            pass

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20, 1000, 1000)
    gc.callbacks.append(collected)
    yield
    gc.callbacks.remove(collected)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


def test_threads_that_load_versions_at_once_do_not_disturb_each_other(
    served_models: ServedModels, crowded: None
) -> None:
    """Numpy's reading of array headers raised SystemError in one of two threads, on CPython 3.11.2."""
    versions = [served_models.version(f"model {number}", seed=number) for number in range(2)]
    failures: list[BaseException] = []
    with ExitStack() as open_folders:
        client = served_models.client
        folders = [open_folders.enter_context(store.downloaded(client, one.location)) for one in versions]

        def load_some(number: int) -> None:
            try:
                for _ in range(LOADS):
                    load(versions[number], folders[number], False, "")
            except BaseException as error:  # noqa: BLE001 (SystemError among them)
                failures.append(error)

        threads = [threading.Thread(target=load_some, args=(number % 2,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []
