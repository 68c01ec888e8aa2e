"""Formats the trace of a run as a tree with durations. The spans come from ledgerline/traces/spans.py."""

from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ledgerline.ledger import history, ids
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.traces import attributes as names
from ledgerline.traces.spans import SCOPE, run_spans

BAR_CELLS = 24
# Shorter phases are omitted; steps and the spans of user code never are.
MIN_SECONDS = 0.1


@dataclass(frozen=True)
class _Name:
    """A name, which is truncated if necessary, and the marks beside it, which are never truncated."""

    name: Text
    marks: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        name = self.name.copy()
        name.truncate(max(1, options.max_width - self.marks.cell_len), overflow="ellipsis")
        yield Text.assemble(name, self.marks, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        marks = self.marks.cell_len
        return Measurement(1 + marks, self.name.cell_len + marks)


def trace_tree(run: RunHistory, least_seconds: float = MIN_SECONDS) -> Table:
    """Return the trace of a run as a table: a line for each span, with its seconds and a bar."""
    spans = list(run_spans(run, None, Resource.get_empty(), Links(), None))
    children: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        if span.context is not None and span.context.trace_id == ids.trace_id(run.run.run_id):
            children.setdefault(span.parent.span_id if span.parent is not None else 0, []).append(span)
    times = [time for span in spans for time in (span.start_time or 0, span.end_time or 0)]
    begin, end = (min(times), max(times)) if times else (0, 0)

    table = Table.grid(padding=(0, 1))
    # In a narrow terminal only names are truncated, because only this column may become narrower.
    table.add_column()
    table.add_column(justify="right", no_wrap=True, min_width=8)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    root_id = ids.run_span_id(run.run.run_id)
    if not any(span.context is not None and span.context.span_id == root_id for span in spans):
        name = _Name(Text(f"run {run.title}", style="bold"), Text())
        table.add_row(name, "", Text("running", style="cyan"), "")
    for parent in (0, root_id) if 0 not in children else (0,):
        for guide, span in _lines(children, parent, "", least_seconds):
            table.add_row(*_cells(guide, span, begin, end))
    return table


def _lines(
    children: dict[int, list[ReadableSpan]], parent: int, guide: str, least_seconds: float
) -> Iterator[tuple[str, ReadableSpan]]:
    """Yield the spans below a parent in order, each after the guide in front of its name."""
    listed = [span for span in children.get(parent, []) if _is_listed(span, children, least_seconds)]
    listed.sort(key=lambda span: span.start_time or 0)
    for span in listed:
        if parent == 0:
            own, below = "", ""
        else:
            last = span is listed[-1]
            own, below = guide + ("└─ " if last else "├─ "), guide + ("   " if last else "│  ")
        yield own, span
        if span.context is not None:
            yield from _lines(children, span.context.span_id, below, least_seconds)


def _is_listed(span: ReadableSpan, children: dict[int, list[ReadableSpan]], least_seconds: float) -> bool:
    own = span.instrumentation_scope == SCOPE and names.OUTCOME not in (span.attributes or {})
    is_phase = own and span.name.startswith(history.ATTEMPT_PHASES)
    has_children = span.context is not None and span.context.span_id in children
    return not is_phase or has_children or _failed(span) or _seconds(span) >= least_seconds


def _cells(guide: str, span: ReadableSpan, begin: int, end: int) -> tuple[_Name, Text, Text, Text]:
    attributes = span.attributes or {}
    is_step = names.OUTCOME in attributes
    name = Text.assemble((guide, "dim"), (span.name, "bold" if is_step or not guide else ""))
    marks = Text()
    attempt = attributes.get(names.ATTEMPT)
    if is_step and isinstance(attempt, int) and attempt > 1:
        marks.append(f"  attempt {attempt}", style="yellow")
    if _failed(span):
        marks.append("  ✗", style="bold red")
    rows = attributes.get(names.ROWS)
    detail = f"{rows:,} rows" if is_step and isinstance(rows, int) else ""
    return _Name(name, marks), Text(f"{_seconds(span):.1f} s"), _bar(span, begin, end), Text(detail)


def _bar(span: ReadableSpan, begin: int, end: int) -> Text:
    width = max(end - begin, 1)
    start = ((span.start_time or begin) - begin) * BAR_CELLS // width
    stop = max(start + 1, -(-((span.end_time or begin) - begin) * BAR_CELLS // width))
    start = min(start, BAR_CELLS - 1)
    filled = "━" * (min(stop, BAR_CELLS) - start)
    bar = Text(" " * start + filled, style="red" if _failed(span) else "green")
    return bar if span.name not in (history.QUEUED, history.LAUNCH) else Text(bar.plain, style="dim")


def _failed(span: ReadableSpan) -> bool:
    return span.status.status_code is StatusCode.ERROR


def _seconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e9
