"""Tests pictures of real and odd runs: they are drawn, and name what they leave out."""

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ledgerline.ledger.history import (
    COMPUTE,
    START_WORKER,
    Attempt,
    Error,
    Outcome,
    Phase,
    Run,
    RunHistory,
    RunStatus,
)
from ledgerline.mlflow_runs.timeline import DOTS_PER_INCH, ROW_HEIGHT, WIDTH, timeline
from ledgerline.testing.recordings import Recording, Recordings

if TYPE_CHECKING:
    import numpy as np

RUN = Run("11111111-2222-4333-8444-555555555555", "train", created=1_000.0)
BLUE, RED, PINK = (0, 114, 178), (213, 0, 0), (204, 121, 167)  # compute, failed, start worker


def step(name: str, started: float = 1_002.0, seconds: float = 3.0, **changes: object) -> Attempt:
    phases = (
        Phase(START_WORKER, started, started + seconds / 3),
        Phase(COMPUTE, started + seconds / 3, started + seconds),
    )
    attempt = Attempt(name, name, 1, started, started + seconds, Outcome.SUCCESS, phases=phases)
    return replace(attempt, **changes)


def history(*attempts: Attempt) -> RunHistory:
    return RunHistory(RUN, RunStatus.SUCCESS, started=1_001.0, ended=1_010.0, attempts=attempts)


def pixels(png: bytes) -> "np.ndarray":
    """Rows of pixels, red, green and blue up to 255."""
    from matplotlib.image import imread

    return (imread(io.BytesIO(png))[:, :, :3] * 255).round().astype(int)


def area(png: bytes, colour: tuple[int, int, int]) -> int:
    """How many pixels have a colour."""
    return int((pixels(png) == colour).all(axis=2).sum())


def test_every_real_run_is_drawn(recording: Recording):
    assert timeline(recording.history).startswith(b"\x89PNG")


def test_a_real_run_is_drawn_at_every_moment(recorded: Recordings):
    recording = recorded["processes"]

    for end in range(0, len(recording.records), 20):
        assert timeline(recording.history_of(recording.records[:end])).startswith(b"\x89PNG")


def test_a_phase_is_as_long_as_it_took():
    once, twice = timeline(history(step("fit"))), timeline(history(step("fit"), step("evaluate")))

    assert area(once, BLUE) > area(once, PINK) * 1.5
    assert area(twice, BLUE) > area(once, BLUE) * 1.5
    assert pixels(once).shape[1] == WIDTH * DOTS_PER_INCH
    assert pixels(twice).shape[0] - pixels(once).shape[0] == pytest.approx(ROW_HEIGHT * DOTS_PER_INCH, abs=2)


def test_failed_steps_are_red():
    phases = (Phase(COMPUTE, 1_002.0, 1_005.0, failed=True),)

    assert area(timeline(history(step("fit"))), RED) == 0
    assert area(timeline(history(step("fit", outcome=Outcome.FAILURE, phases=phases))), RED) > 1000


def test_the_longest_and_the_failed_of_very_many_steps_are_drawn():
    many = [step(f"step_{number}", seconds=1 + number / 100) for number in range(59)]
    failed = step(
        "short", seconds=0.1, outcome=Outcome.FAILURE, phases=(Phase(COMPUTE, 1_002.0, 1_002.1, True),)
    )
    few = timeline(history(*many, failed))

    all_of_them = timeline(
        history(*many, *(step(f"brief_{number}", seconds=0.2) for number in range(90)), failed)
    )

    assert pixels(all_of_them).shape == pixels(few).shape
    assert area(all_of_them, RED) > 0


@pytest.mark.parametrize("name", ["$x$ ^_{", "a" * 500, "double[2]", "größe", "<b>%s</b>", ""])
def test_any_name_is_drawn_as_it_is(name: str):
    run = replace(RUN, job=name)

    assert timeline(replace(history(step(name)), run=run)).startswith(b"\x89PNG")


def test_a_run_without_steps_is_drawn():
    assert timeline(RunHistory(RUN)).startswith(b"\x89PNG")
    assert timeline(RunHistory(RUN, RunStatus.FAILURE, ended=1_000.0)).startswith(b"\x89PNG")


@pytest.mark.parametrize("seconds", [0.0, 40.0, 400_000.0])
def test_a_run_that_ended_before_its_first_step_has_a_picture_too(seconds: float) -> None:
    run = Run("8ffcde5c-a1e7-4039-b61b-1a3ec100fc02", "bake", created=100.0)

    picture = timeline(
        RunHistory(run, RunStatus.FAILURE, ended=100.0 + seconds, error=Error("E", "lost", ""))
    )

    assert picture.startswith(b"\x89PNG")
