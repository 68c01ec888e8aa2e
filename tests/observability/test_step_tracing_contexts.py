"""Tests spans from inside steps of several runs in one process, and of their threads."""

import contextvars
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import dagster as dg
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ledgerline.dagster.tracing import OTelResource
from tests.observability.exported_spans import context_of, key_of, named
from tests.observability.step_spans import WAIT_SECONDS, after, paths, run_of

pytestmark = pytest.mark.usefixtures("unused_opentelemetry")

# One process, several runs


def test_runs_in_one_process_have_separate_traces(instance: dg.DagsterInstance) -> None:
    left_open: list[AbstractContextManager[object]] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"):
            pass
        # Never closed, as by a generator that is not exhausted.
        leaked = otel.span("leaked")
        leaked.__enter__()
        left_open.append(leaked)

    first, second = run_of(instance, fetch), run_of(instance, fetch)
    assert paths(first) == paths(second) == ["fetch > compute > read"]
    assert {context_of(span).trace_id for span in first}.isdisjoint(
        context_of(span).trace_id for span in second
    )
    close(left_open)


def test_a_span_that_a_step_left_open_is_not_around_the_next_step(instance: dg.DagsterInstance) -> None:
    left_open: list[AbstractContextManager[object]] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        leaked = otel.span("leaked")
        leaked.__enter__()
        left_open.append(leaked)

    @dg.op(ins=after)
    def count(otel: OTelResource) -> None:
        with otel.span("add up"):
            pass

    assert paths(run_of(instance, fetch, count)) == ["count > compute > add up"]
    close(left_open)


def close(left_open: list[AbstractContextManager[object]]) -> None:
    """Leave nothing behind for the next test."""
    for span in reversed(left_open):
        span.__exit__(None, None, None)
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_span_around_the_start_of_a_run_is_not_its_parent(instance: dg.DagsterInstance) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"):
            pass

    with provider.get_tracer("caller").start_as_current_span("call") as call:
        spans = run_of(instance, fetch)
        assert trace.get_current_span() is call
    assert paths(spans) == ["fetch > compute > read"]
    assert [span.name for span in exporter.get_finished_spans()] == ["call"]


# Threads


def in_a_thread(target: Callable[[], None]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


def test_a_thread_with_all_of_the_context_nests(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read() -> None:
            with otel.span("read"):
                pass

        with otel.span("hand on"):
            context = contextvars.copy_context()
            in_a_thread(lambda: context.run(read))

    assert paths(run_of(instance, fetch)) == ["fetch > compute > hand on", "fetch > compute > hand on > read"]


def test_a_thread_with_opentelemetrys_context_nests(instance: dg.DagsterInstance) -> None:
    environments: list[Mapping[str, str]] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read(context: otel_context.Context) -> None:
            token = otel_context.attach(context)
            with otel.span("read"), otel.span("parse"):
                environments.append(otel.environment())
            otel_context.detach(token)

        with otel.span("hand on"):
            context = otel_context.get_current()
            in_a_thread(lambda: read(context))

    spans = run_of(instance, fetch)
    assert paths(spans) == [
        "fetch > compute > hand on",
        "fetch > compute > hand on > read",
        "fetch > compute > hand on > read > parse",
    ]
    trace_id, span_id = key_of(named(spans, "parse"))
    assert environments == [{"TRACEPARENT": f"00-{trace_id:032x}-{span_id:016x}-01"}]


def test_a_thread_without_a_context_records_nothing(instance: dg.DagsterInstance) -> None:
    recorded: list[bool] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read() -> None:
            with otel.span("read") as span:
                recorded.append(span.is_recording())
            assert otel.environment() == {}

        with otel.span("hand on"):
            in_a_thread(read)

    assert paths(run_of(instance, fetch)) == ["fetch > compute > hand on"]
    assert recorded == [False]


def test_a_thread_that_outlives_its_run_does_no_harm(instance: dg.DagsterInstance) -> None:
    over = threading.Event()
    threads: list[threading.Thread] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read() -> None:
            with otel.span("too late"):
                assert over.wait(WAIT_SECONDS)

        context = contextvars.copy_context()
        threads.append(threading.Thread(target=context.run, args=(read,)))
        threads[0].start()

    assert paths(run_of(instance, fetch)) == []
    over.set()
    threads[0].join()

    @dg.op
    def count(otel: OTelResource) -> None:
        with otel.span("add up"):
            pass

    assert paths(run_of(instance, count)) == ["count > compute > add up"]
