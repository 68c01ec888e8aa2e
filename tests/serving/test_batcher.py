"""Tests the batcher: which requests form a batch, which prediction each receives, and failures."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType
from mlflow.types import Schema as MLflowSchema

from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.versions import Version
from ledgerline.serving.batcher import (
    MAX_BATCH_ROWS,
    Batcher,
    ModelFailedError,
    OverdueError,
    Prediction,
    RequestRowsError,
)
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import schema_of
from ledgerline.testing.waiting import wait_until

SECONDS = 120.0
_VALUE = MLflowSchema([ColSpec(DataType.double, "value")])
SIGNATURE = ModelSignature(_VALUE, _VALUE)


@dataclass
class FakeModel:
    """Doubles values; fails on negative ones, or on all once it is broken; waits while its gate is closed.

    Attributes:
        batches: The values of each call.
        gate: Set while it predicts without waiting.
        began: Set by each call.
        broken: True if it fails on all values.
    """

    batches: list[list[float]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    broken: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def predict(self, frame: pd.DataFrame) -> Any:
        values = frame["value"].to_numpy()
        self.batches.append(values.tolist())
        self.began.set()
        assert self.gate.wait(SECONDS)
        if self.broken or (values < 0).any():
            raise ValueError("The fake model fails.")
        return values * 2


def rows_of(*values: float) -> Rows:
    return Rows({"value": np.array(values, "float64")}, len(values))


def stored(method: Callable[[Any], Any]) -> StoredModel:
    return StoredModel("fake", None, "predict", method)


def loaded(model: FakeModel, number: int = 1) -> LoadedModel:
    return LoadedModel(
        version=Version("fake", number, "", "", datetime.now(UTC), {}),
        sha256="",
        schema=schema_of(SIGNATURE),
        signature=SIGNATURE,
        example=rows_of(1.0),
        experiment_id="",
        loaded_at=datetime.now(UTC),
        model=stored(model.predict),
    )


@contextmanager
def predicting(observe: Callable[[int, int, float], None] = lambda *_: None) -> Iterator[Batcher]:
    batcher = Batcher(observe)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.stop(SECONDS)
    assert batcher._thread is not None
    assert not batcher._thread.is_alive()


async def until_queued(batcher: Batcher, count: int) -> None:
    await asyncio.to_thread(wait_until, lambda: batcher.queued == count, f"{count} requests are queued")


async def prediction_under_way(
    batcher: Batcher, version: LoadedModel, model: FakeModel, value: float = 1
) -> asyncio.Task[Prediction]:
    """Return a prediction that waits until the gate of the model is opened."""
    model.gate.clear()
    model.began.clear()
    task = asyncio.create_task(batcher.predict(version, rows_of(value), time.monotonic() + SECONDS))
    await asyncio.to_thread(wait_until, model.began.is_set, "the model predicts")
    return task


async def predicted_together(
    batcher: Batcher, busy: LoadedModel, model: FakeModel, requests: list[tuple[LoadedModel, Rows]]
) -> list[Prediction | BaseException]:
    """Return the predictions for requests that all arrived during a prediction."""
    deadline = time.monotonic() + SECONDS
    first = await prediction_under_way(batcher, busy, model, 0.5)
    tasks: list[Awaitable[Prediction]] = []
    for asked, rows in requests:
        tasks.append(asyncio.create_task(batcher.predict(asked, rows, deadline)))
        await until_queued(batcher, len(tasks))
    model.gate.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def answers(predictions: list[Prediction | BaseException]) -> list[Any]:
    """Return each prediction, or the type of the failure."""
    return [
        found.outputs.columns[UNNAMED].tolist() if isinstance(found, Prediction) else type(found)
        for found in predictions
    ]


# Batches


def test_a_lone_request_is_predicted_at_once() -> None:
    model = FakeModel()
    with predicting() as batcher:
        found = asyncio.run(batcher.predict(loaded(model), rows_of(1, 2), time.monotonic() + SECONDS))

    assert answers([found]) == [[2.0, 4.0]]
    assert found.batch_rows == 2
    assert model.batches == [[1.0, 2.0]]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_queued_requests_form_a_batch_and_each_gets_its_own_prediction(sizes: list[int]) -> None:
    model, observed = FakeModel(), []
    version = loaded(model)
    values = iter(range(1, sum(sizes) + 1))
    requests = [rows_of(*(next(values) for _ in range(size))) for size in sizes]

    with predicting(lambda rows, requests, seconds: observed.append((rows, requests))) as batcher:
        found = asyncio.run(
            predicted_together(batcher, version, model, [(version, rows) for rows in requests])
        )

    assert answers(found) == [(2 * rows.columns["value"]).tolist() for rows in requests]
    assert model.batches == [[0.5], [float(value) for value in range(1, sum(sizes) + 1)]]
    assert {each.batch_rows for each in found if isinstance(each, Prediction)} == {sum(sizes)}
    assert observed == [(1, 1), (sum(sizes), len(sizes))]


def test_a_batch_has_at_most_the_maximum_of_rows() -> None:
    model = FakeModel()
    version = loaded(model)
    half = rows_of(*range(MAX_BATCH_ROWS // 2))

    with predicting() as batcher:
        found = asyncio.run(predicted_together(batcher, version, model, [(version, half)] * 3))

    assert all(isinstance(each, Prediction) for each in found)
    assert [len(values) for values in model.batches] == [1, MAX_BATCH_ROWS, MAX_BATCH_ROWS // 2]


def test_one_request_may_have_more_rows_than_a_batch() -> None:
    model = FakeModel()
    version = loaded(model)
    many = rows_of(*range(MAX_BATCH_ROWS + 1))

    with predicting() as batcher:
        (found,) = asyncio.run(predicted_together(batcher, version, model, [(version, many)]))

    assert isinstance(found, Prediction)
    assert found.outputs.count == MAX_BATCH_ROWS + 1


def test_requests_for_two_versions_are_never_mixed_and_keep_their_order() -> None:
    old, new = FakeModel(), FakeModel()
    one, two = loaded(old, 1), loaded(new, 2)
    asked = [one, one, two, one, two]
    requests = [(version, rows_of(value)) for value, version in enumerate(asked, 1)]

    with predicting() as batcher:
        found = asyncio.run(predicted_together(batcher, one, old, requests))

    assert answers(found) == [[2.0], [4.0], [6.0], [8.0], [10.0]]
    assert [each.loaded for each in found if isinstance(each, Prediction)] == asked
    assert old.batches == [[0.5], [1.0, 2.0], [4.0]]
    assert new.batches == [[3.0], [5.0]]


def test_a_request_whose_batch_stays_incomplete_is_predicted_soon() -> None:
    model = FakeModel()
    version = loaded(model)

    async def alone_after_a_batch(batcher: Batcher) -> Prediction:
        await predicted_together(batcher, version, model, [(version, rows_of(1)), (version, rows_of(2))])
        return await batcher.predict(version, rows_of(3), time.monotonic() + SECONDS)

    with predicting() as batcher:
        assert batcher._expected_requests == 1
        found = asyncio.run(alone_after_a_batch(batcher))

    # If it had waited for the other one, it would be overdue.
    assert answers([found]) == [[6.0]]
    assert model.batches[-1] == [3.0]


# Failures


@settings(max_examples=25, deadline=None)
@given(bad=st.lists(st.booleans(), min_size=1, max_size=8))
def test_rows_that_the_model_fails_on_fail_their_own_request_only(bad: list[bool]) -> None:
    model = FakeModel()
    version = loaded(model)
    requests = [(version, rows_of(-1.0 if is_bad else 3.0, 1.0)) for is_bad in bad]

    with predicting() as batcher:
        found = asyncio.run(predicted_together(batcher, version, model, requests))

    assert answers(found) == [RequestRowsError if is_bad else [6.0, 2.0] for is_bad in bad]


def test_rows_that_cannot_be_joined_are_predicted_one_by_one() -> None:
    """The second axis of an array can have any length, for example of texts that were cut into words."""

    def sums(array: Any) -> Any:
        return array.sum(axis=1)

    model = FakeModel()
    version = loaded(model)
    arrays = replace(version, model=stored(sums), example=Rows({UNNAMED: np.ones((1, 2))}, 1))
    requests = [(arrays, Rows({UNNAMED: np.ones((2, length))}, 2)) for length in (3, 5)]

    with predicting() as batcher:
        found = asyncio.run(predicted_together(batcher, version, model, requests))

    assert answers(found) == [[3.0, 3.0], [5.0, 5.0]]


def test_a_model_that_fails_on_its_own_example_is_at_fault_and_not_the_request() -> None:
    model = FakeModel(broken=True)

    with predicting() as batcher, pytest.raises(ModelFailedError, match=r"^The fake model fails\.$"):
        asyncio.run(batcher.predict(loaded(model), rows_of(1), time.monotonic() + SECONDS))


def test_after_a_failure_the_next_request_is_answered() -> None:
    model = FakeModel()
    version = loaded(model)

    async def bad_and_good(batcher: Batcher) -> Prediction:
        with pytest.raises(RequestRowsError):
            await batcher.predict(version, rows_of(-1), time.monotonic() + SECONDS)
        return await batcher.predict(version, rows_of(1), time.monotonic() + SECONDS)

    with predicting() as batcher:
        assert answers([asyncio.run(bad_and_good(batcher))]) == [[2.0]]


@pytest.mark.parametrize("panic", [SystemExit(1), KeyboardInterrupt(), BaseException("panic")])
def test_exceptions_that_end_threads_do_not_end_the_batcher(panic: BaseException) -> None:
    """Libraries in Rust raise such a BaseException, which is not an Exception."""

    def panicking(frame: pd.DataFrame) -> Any:
        if frame["value"].tolist() != [2.0]:
            raise panic
        return [4.0]

    model = FakeModel()
    version = replace(loaded(model), model=stored(panicking))

    async def bad_and_good(batcher: Batcher) -> Prediction:
        deadline = time.monotonic() + SECONDS
        with pytest.raises(ModelFailedError):
            await asyncio.wait_for(batcher.predict(version, rows_of(1), deadline), SECONDS)
        return await batcher.predict(version, rows_of(2), deadline)

    with predicting() as batcher:
        assert answers([asyncio.run(bad_and_good(batcher))]) == [[4.0]]


def test_a_prediction_with_another_number_of_rows_is_an_error() -> None:
    model = FakeModel()
    version = replace(loaded(model), model=stored(lambda frame: [1.0]))

    async def two_and_one(batcher: Batcher) -> Prediction:
        with pytest.raises(RequestRowsError, match="returns 1 values for 2 rows"):
            await batcher.predict(version, rows_of(1, 2), time.monotonic() + SECONDS)
        return await batcher.predict(version, rows_of(1), time.monotonic() + SECONDS)

    with predicting() as batcher:
        assert answers([asyncio.run(two_and_one(batcher))]) == [[1.0]]


# In time


def test_an_overdue_request_is_never_predicted() -> None:
    model = FakeModel()
    version = loaded(model)

    async def late_and_in_time(batcher: Batcher) -> list[Prediction | BaseException]:
        first = await prediction_under_way(batcher, version, model)
        now = time.monotonic()
        late = asyncio.create_task(batcher.predict(version, rows_of(2), now - 1))
        in_time = asyncio.create_task(batcher.predict(version, rows_of(3), now + SECONDS))
        await until_queued(batcher, 2)
        model.gate.set()
        return list(await asyncio.gather(first, late, in_time, return_exceptions=True))

    with predicting() as batcher:
        found = asyncio.run(late_and_in_time(batcher))

    assert answers(found) == [[2.0], OverdueError, [6.0]]
    assert model.batches == [[1.0], [3.0]]


def test_a_request_that_becomes_overdue_while_others_fail_is_not_predicted_again() -> None:
    """They were in one batch; predicting them one by one takes longer than one of them can wait."""
    model = FakeModel()
    version = loaded(model)

    def slow_and_failing(frame: pd.DataFrame) -> Any:
        if frame["value"].tolist() == [1.0]:
            return [0.0]
        deadline.wait(SECONDS)
        return model.predict(frame)

    deadline = threading.Event()
    slow = replace(version, model=stored(slow_and_failing))

    async def one_in_time(batcher: Batcher) -> list[Prediction | BaseException]:
        first = await prediction_under_way(batcher, version, model, 0.5)
        now = time.monotonic()
        bad = asyncio.create_task(batcher.predict(slow, rows_of(-1), now + SECONDS))
        soon = asyncio.create_task(batcher.predict(slow, rows_of(7), now + 1))
        await until_queued(batcher, 2)
        model.gate.set()
        await first
        await asyncio.to_thread(wait_until, lambda: time.monotonic() > now + 1, "a request is overdue")
        deadline.set()
        return list(await asyncio.gather(bad, soon, return_exceptions=True))

    with predicting() as batcher:
        found = asyncio.run(one_in_time(batcher))

    assert answers(found) == [RequestRowsError, OverdueError]
    assert [7.0] not in model.batches


def test_a_cancelled_request_is_never_predicted() -> None:
    model = FakeModel()
    version = loaded(model)

    async def given_up(batcher: Batcher) -> Prediction:
        deadline = time.monotonic() + SECONDS
        first = await prediction_under_way(batcher, version, model)
        second = asyncio.create_task(batcher.predict(version, rows_of(2), deadline))
        await until_queued(batcher, 1)
        second.cancel()
        await asyncio.wait([second])
        model.gate.set()
        await first
        return await batcher.predict(version, rows_of(3), deadline)

    with predicting() as batcher:
        found = asyncio.run(given_up(batcher))

    assert answers([found]) == [[6.0]]
    assert model.batches == [[1.0], [3.0]]


def test_a_request_that_is_cancelled_during_its_prediction_affects_no_other() -> None:
    model = FakeModel()
    version = loaded(model)

    async def given_up(batcher: Batcher) -> Prediction:
        deadline = time.monotonic() + SECONDS
        first = await prediction_under_way(batcher, version, model)
        first.cancel()
        await asyncio.wait([first])
        model.gate.set()
        return await batcher.predict(version, rows_of(2), deadline)

    with predicting() as batcher:
        assert answers([asyncio.run(given_up(batcher))]) == [[4.0]]


# The end


def test_queued_requests_are_predicted_before_the_end() -> None:
    model = FakeModel()
    version = loaded(model)

    async def ended(batcher: Batcher) -> list[Prediction | BaseException]:
        deadline = time.monotonic() + SECONDS
        first = await prediction_under_way(batcher, version, model)
        tasks = [first] + [
            asyncio.create_task(batcher.predict(version, rows_of(value), deadline)) for value in (2, 3)
        ]
        await until_queued(batcher, 2)
        stopping = asyncio.create_task(asyncio.to_thread(batcher.stop, SECONDS))
        await until_queued(batcher, 3)  # with the end itself
        model.gate.set()
        await stopping
        return await asyncio.gather(*tasks, return_exceptions=True)

    batcher = Batcher()
    batcher.start()
    assert answers(asyncio.run(ended(batcher))) == [[2.0], [4.0], [6.0]]


def test_an_end_does_not_wait_for_a_model_that_does_not_answer() -> None:
    model = FakeModel()

    async def hanging(batcher: Batcher) -> bool:
        asked = await prediction_under_way(batcher, loaded(model), model)
        await asyncio.to_thread(batcher.stop, 0.1)
        answered = asked.done()
        asked.cancel()
        return answered

    batcher = Batcher()
    batcher.start()
    assert not asyncio.run(hanging(batcher))
    # The event loop has ended, too, so that the result is not delivered.
    model.gate.set()
    batcher.stop(SECONDS)
    assert batcher._thread is not None
    assert not batcher._thread.is_alive()


def test_a_model_that_is_slow_by_the_row_predicts_without_batches() -> None:
    model = FakeModel()
    version = loaded(model)

    with predicting() as batcher:
        for count in (1, 2, 4, 8):
            batcher._costs.add(count, 1e4 * count)  # far more than what the rest of this test takes
        found = asyncio.run(predicted_together(batcher, version, model, [(version, rows_of(1, 2))] * 3))

    assert answers(found) == [[2.0, 4.0]] * 3
    assert model.batches == [[0.5], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
