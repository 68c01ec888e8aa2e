"""Draws the timeline of a run as PNG: durations, waits and dependencies. projection.py stores it."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ledgerline.ledger.history import (
    COMPUTE,
    LAUNCH,
    LOAD,
    QUEUED,
    RESOURCES,
    START_WORKER,
    STORE,
    WAIT,
    Attempt,
    HookOutcome,
    Outcome,
    RunHistory,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 60  # maximum number of attempts; failed and long ones are preferred
MAX_LABEL_LENGTH = 44
MAX_TITLE_LENGTH = 80

MISSING = "□"  # replaces a character that the font lacks

DOTS_PER_INCH = 110
WIDTH = 10.0  # inches
ROW_HEIGHT = 0.26
FRAME_HEIGHT = 1.5

WAITING, BETWEEN, HOOK, FAILED = "waiting", "in between", "hook", "failed"
# The colours, in the order of the legend, are distinguishable with any colour vision (Okabe and Ito).
COLOURS = {
    WAITING: "#eceff1",
    QUEUED: "#f0e442",
    WAIT: "#ffb74d",
    LAUNCH: "#e69f00",
    START_WORKER: "#cc79a7",
    RESOURCES: "#7b5ea7",
    LOAD: "#56b4e9",
    COMPUTE: "#0072b2",
    STORE: "#009e73",
    HOOK: "#8d6e63",
    BETWEEN: "#b0bec5",
    FAILED: "#d50000",
}
INK, PALE_INK = "#263238", "#78909c"


@dataclass(frozen=True)
class _Row:
    """A row of the timeline; times are seconds from its left edge."""

    label: str
    ended: float
    bars: Sequence[tuple[str, float, float]]  # kind, start, seconds
    remark: str
    failed: bool = False
    attempt: Attempt | None = None


def timeline(history: RunHistory) -> bytes:
    """Return a PNG with one row for each attempt in the order of their start, below the waits of the run."""
    from matplotlib.figure import Figure

    attempts, left_out = _selected(history.attempts)
    zero = min(
        [history.run.created if history.started is None else history.started]
        + [wait.started for wait in history.waits]
    )
    now = max([zero, *_times(history)])
    rows = list(_rows_of_run(history, zero))
    free = {attempt.step: history.started or attempt.started for attempt in reversed(attempts)}
    for attempt in attempts:
        rows.append(_row(attempt, free[attempt.step], zero, now))
        free[attempt.step] = attempt.ended or now  # The time from which a retry waits.

    # pyplot would keep all figures of the process in memory, and would need a display.
    height = FRAME_HEIGHT + ROW_HEIGHT * max(len(rows), 1)
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    _draw(axes, rows, now - zero)
    _draw_dependencies(axes, rows, zero)
    _frame(figure, axes, rows, history)
    note = f"seconds; {left_out} short attempts are left out" if left_out else "seconds"
    axes.set_xlabel(note, color=PALE_INK, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _selected(attempts: Sequence[Attempt]) -> tuple[list[Attempt], int]:
    """Return the attempts of the timeline in the order of their start, and the number of other attempts."""
    ranked = sorted(
        attempts, key=lambda attempt: (attempt.ended is None, attempt.failed, attempt.seconds), reverse=True
    )
    selected = sorted(ranked[:MAX_ROWS], key=lambda attempt: attempt.started)
    return selected, len(attempts) - len(selected)


def _times(history: RunHistory) -> Iterator[float]:
    for attempt in history.attempts:
        yield attempt.ended or attempt.started
        for part in (*attempt.phases, *attempt.hooks):
            yield part.ended
    for phase in (*history.waits, *history.phases):
        yield phase.ended
    if history.ended is not None:
        yield history.ended


def _rows_of_run(history: RunHistory, zero: float) -> Iterator[_Row]:
    for phase in (*history.waits, *history.phases):
        bar = (FAILED if phase.failed else phase.name, phase.started - zero, phase.seconds)
        yield _Row(phase.name, phase.ended - zero, [bar], _seconds(phase.seconds), phase.failed)


def _row(attempt: Attempt, waited_from: float, zero: float, now: float) -> _Row:
    started, ended = attempt.started - zero, (attempt.ended or now) - zero
    waited = attempt.started - waited_from
    bars = [(WAITING, waited_from - zero, waited), (BETWEEN, started, ended - started)]
    bars += [
        (FAILED if phase.failed else phase.kind, phase.started - zero, phase.seconds)
        for phase in attempt.phases
    ]
    bars += [
        (FAILED if hook.outcome is HookOutcome.ERRORED else HOOK, hook.started - zero, hook.seconds)
        for hook in attempt.hooks
    ]
    again = f" #{attempt.number}" if attempt.number > 1 else ""
    remark = _seconds(ended - started)
    if attempt.outcome is not Outcome.SUCCESS:
        remark += f", {'failed' if attempt.outcome is Outcome.FAILURE else attempt.outcome.value}"
    return _Row(
        _cut(attempt.step, MAX_LABEL_LENGTH - len(again)) + again,
        max([ended, *(hook.ended - zero for hook in attempt.hooks)]),
        bars,
        remark,
        attempt.failed,
        attempt,
    )


def _draw(axes: "Axes", rows: Sequence[_Row], seconds: float) -> None:
    bars: dict[str, list[tuple[int, float, float]]] = {}
    for index, row in enumerate(rows):
        for what, start, length in row.bars:
            bars.setdefault(what, []).append((index, start, length))
        axes.text(
            row.ended + seconds * 0.006,
            index,
            row.remark,
            va="center",
            fontsize=7,
            color=COLOURS[FAILED] if row.failed else PALE_INK,
        )
    for layer, what in enumerate([WAITING, BETWEEN, *(set(bars) - {WAITING, BETWEEN, FAILED}), FAILED]):
        if what in bars:
            index, start, length = zip(*bars[what], strict=True)
            axes.barh(
                index,
                length,
                left=start,
                height=0.36 if what in (WAITING, BETWEEN) else 0.72,
                color=COLOURS.get(what, COLOURS[BETWEEN]),
                zorder=2 + layer,
            )
    # The limit is the duration of the run, because a run without steps has no bars.
    axes.set_xlim(0, max(seconds, 0.001) * 1.1)


def _draw_dependencies(axes: "Axes", rows: Sequence[_Row], zero: float) -> None:
    """Draw a line to each attempt from the step that was the last to write an asset it read or checked."""
    writers: dict[str, tuple[float, int]] = {}
    for index, row in enumerate(rows):
        attempt = row.attempt
        if attempt is None:
            continue
        own = {written.asset for written in attempt.materialisations}
        upstream = {read.asset for read in attempt.reads}
        upstream |= {check.asset for check in attempt.checks} | set(attempt.inputs)
        sources = [writers[asset] for asset in upstream - own if asset in writers]
        if sources:
            ended, above = max(sources)
            times = [ended, ended, attempt.started]
            axes.plot(
                [time - zero for time in times], [above, index, index], color=PALE_INK, lw=0.7, zorder=30
            )
        if attempt.ended is not None:
            writers |= dict.fromkeys(own, (attempt.ended, index))


def _frame(figure: "Figure", axes: "Axes", rows: Sequence[_Row], history: RunHistory) -> None:
    from matplotlib.patches import Patch

    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    # A `$` in a name does not begin a formula.
    axes.set_yticks(range(len(rows)), [row.label for row in rows], parse_math=False, fontsize=8, color=INK)
    axes.tick_params(axis="x", labelsize=7, colors=PALE_INK, length=2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dfe4e8", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)

    parts = [history.status.value]
    if history.ended is not None:
        parts.append(_seconds(history.ended - (history.started or history.run.created)))
    parts.append(history.run.run_id)
    figure.suptitle(
        _cut(history.title, MAX_TITLE_LENGTH),
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
        color=INK,
        parse_math=False,
    )
    axes.set_title("   ".join(parts), loc="left", fontsize=8, color=PALE_INK, parse_math=False)
    drawn = {what for row in rows for what, _, seconds in row.bars if seconds > 0}
    figure.legend(
        handles=[Patch(color=colour, label=what) for what, colour in COLOURS.items() if what in drawn],
        loc="outside lower center",
        ncols=len(COLOURS),
        fontsize=7,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        columnspacing=1.2,
    )


def _seconds(seconds: float) -> str:
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
    return f"{seconds:.2f} s"


def _cut(text: str, length: int) -> str:
    """Return a text on one line, without characters that the font lacks, and shortened in the middle."""
    text = " ".join(text.split())
    known = _characters()
    text = "".join(character if ord(character) in known else MISSING for character in text)
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}…{text[-(length - length // 2 - 1) :]}"


@cache
def _characters() -> frozenset[int]:
    """Return the characters that the font has; matplotlib logs a warning for any other character."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())
