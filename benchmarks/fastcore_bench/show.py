"""What a terminal shows of a result: tables, notes, and progress while it is measured.

It must not know how anything is measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .children import NOT_STARTED
from .result import CPU, ENGINES, MEMORY, P50, RATE, THREAD_SHARE, Cell, Result, Workload

TableOf = Callable[[Workload], Table]  # the table to show while a workload is measured
LEFT_OUT = "left out"  # how the failure of a cell begins that there was no time for
MISSING = "missing"  # and of one whose server is not there
SPREAD, TO_LIMIT, TO_PEER = "spread", "to limit", "to peer"  # columns that are no figures
FIGURES = {CPU: "CPU", RATE: "rate", MEMORY: "mem.", P50: "p50"}  # what a workload is about
SHORT = {"connection": "conn.", "delivery": "deliv."}
LEGEND = (
    "limit: a minimal C program on epoll, which is what the kernel costs.",
    "floor: a minimal loop in C that calls the very handlers in Python, with recv and send in C:"
    " what any loop for such programs costs at least.",
    "CPU us: CPU time of the server for each request, in microseconds; p50, p99: the latency that"
    " half and 99 % of the requests stay below.",
    "/limit: the median as a multiple of the limit's; 1.00 is as good as it gets.",
    "/peer: as a multiple of the best server's that is neither the limit, the floor nor fastcore;"
    " of CPU time, below 1.00 is ahead of all of them.",
)
WORST = 10  # rows of each engine where it is worst
WORST_LEGEND = (
    "worst rows: where fastcore is farthest behind the best server that is neither the limit, the"
    " floor nor fastcore, or least ahead; below 1.00 it is ahead, also where more is better."
)
SPREAD_LEGEND = "\u00b1: half the distance of the quartiles, in percent of the median."


def make_console() -> Console:
    """The terminal.  Brackets are what they are in names and reasons: never markup."""
    return Console(markup=False, emoji=False, highlight=False)


def show_figure(value: float | None, places: int = 0) -> str:
    """A number for the table."""
    return "-" if value is None else f"{value:,.{places}f}"


def show_number(value: float | None) -> str:
    """A number of any size, with digits as they matter."""
    return show_figure(value, 0 if value is None or value >= 1000 else 2)


def show_spread(cell: Cell, name: str) -> str:
    """Half the distance of the quartiles, in percent of the median."""
    middle, spread = cell.median(name), cell.spread(name)
    if not middle or spread is None or len(cell.rounds) < 3:
        return "-"
    return f"{(spread[1] - spread[0]) / middle * 50:.0f}%"


def plural(unit: str) -> str:
    """Several of a unit: requests, deliveries, MiB."""
    if unit == "MiB":
        return unit
    return unit[:-1] + "ies" if unit.endswith("y") else unit + "s"


def row_word(cell: Cell) -> str:
    """What a row without figures says; the notes say why."""
    failure = cell.failure
    if failure is None:
        return "..."
    if failure.startswith((NOT_STARTED, MISSING)):
        return MISSING
    return LEFT_OUT if failure.startswith(LEFT_OUT) else "no answer"


def columns(workload: Workload, spread: bool) -> list[tuple[str, str, int]]:
    """A workload's figures: heading, name and decimal places."""
    if workload.figure == MEMORY:
        shown = [("bytes\n/conn.", MEMORY, 0)]
    else:
        each = "req." if workload.unit == "request" else SHORT.get(workload.unit, workload.unit)
        many = SHORT.get(workload.unit, plural(workload.unit))
        shown = [(f"{many}/s", RATE, 0), (f"CPU us\n/{each}", CPU, 2)]
        shown += [("p50\nus", P50, 0), ("p99\nus", "p99_us", 0)]
    if workload.busy_thread:  # of a core, for the thread that computes
        shown.append(("thread\nshare", THREAD_SHARE, 2))
    what = FIGURES[workload.figure]
    shown += [("\u00b1", SPREAD, 0)] * spread
    return [*shown, (f"{what}\n/limit", TO_LIMIT, 2), (f"{what}\n/peer", TO_PEER, 2)]


def row_text(cell: Cell, workload: Workload, result: Result, name: str, places: int) -> str:
    """One figure of one row."""
    if name == SPREAD:
        return show_spread(cell, workload.figure)
    if name == TO_LIMIT:
        return show_figure(result.ratio_to_limit(cell, workload.figure), places)
    if name == TO_PEER:
        return show_figure(result.ratio_to_best_peer(cell, workload.figure), places)
    return show_figure(cell.median(name), places)


def make_table(
    result: Result, workloads: Sequence[Workload], title: str, *, spread: bool = True
) -> Table:
    """A group of rows for each workload; they must share their columns."""
    # The box puts one space between columns.  Where that is too wide names wrap, figures do not.
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("server", overflow="fold")
    shown = columns(workloads[0], spread)
    for heading, _, _ in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    indent = "  " * (len(workloads) > 1)
    for workload in workloads:
        if indent:
            table.add_row(Text(workload.label, style="bold"))
        for cell in result.row(workload.key):
            texts = [row_text(cell, workload, result, name, places) for _, name, places in shown]
            if not cell.rounds:
                texts[0] = row_word(cell)
            table.add_row(indent + result.server(cell.server).label, *texts)
        table.add_section()
    return table


def make_worst_table(result: Result) -> Table:
    """Of each engine the rows where it is worst beside the best peer."""
    title = "worst rows: fastcore beside the best peer"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("workload", "figure", "fastcore", "best peer"):
        table.add_column(heading, overflow="fold")
    for heading in ("own", "peer's", "times\nas bad"):
        table.add_column(heading, justify="right", no_wrap=True)
    for family in ENGINES:
        for worse, cell, peer in result.worst_rows(family)[:WORST]:
            name = result.workload(cell.workload).figure
            labels = [result.server(each.server).label for each in (cell, peer)]
            labels[0] = labels[0].removeprefix("fastcore ")
            figures = [show_number(each.median(name)) for each in (cell, peer)]
            texts = [cell.workload, FIGURES[name], *labels, *figures]
            table.add_row(*texts, show_figure(worse, 2))
        table.add_section()
    return table


def make_counts_table(result: Result, workload: Workload) -> Table:
    """System calls and instructions by request, where they were counted."""
    table = Table(title=f"{workload.label}: counts", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("server", overflow="fold")
    figures = (
        ("system calls", "syscalls_per_request", 2),
        ("instructions", "instructions_per_request", 0),
    )
    for heading, _, _ in figures:
        table.add_column(f"{heading}\n/{workload.unit}", justify="right", no_wrap=True)
    for cell in result.row(workload.key):
        counts = cell.counts or {}
        texts = [show_figure(counts.get(name), places) for _, name, places in figures]
        table.add_row(result.server(cell.server).label, *texts)
    return table


def cell_notes(result: Result) -> list[str]:
    """What the rows have no room for; the same reason is given once."""
    notes: dict[str, None] = {}
    for workload in result.workloads:
        row = result.row(workload.key)
        if all((cell.failure or "").startswith(LEFT_OUT) for cell in row):
            continue  # below
        for cell in row:
            server, failure = result.server(cell.server).label, cell.failure
            if failure and failure.startswith((NOT_STARTED, MISSING)):
                notes[f"{server}: {failure}."] = None
            elif failure:
                notes[f"{server}, {workload.label}: {failure}."] = None
            if cell.errors:
                notes[f"{server}, {workload.label}: {cell.errors} errors."] = None
    wholly: dict[str, list[str]] = {}
    for workload in result.workloads:
        failures = {cell.failure or "" for cell in result.row(workload.key)}
        if all(failure.startswith(LEFT_OUT) for failure in failures):
            wholly.setdefault(failures.pop(), []).append(workload.label)
    notes.update({f"{why}: {'; '.join(labels)}.": None for why, labels in wholly.items()})
    return list(notes)


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """One line each, below the tables."""
    for note in notes:
        console.print(f"* {note}")


@contextlib.contextmanager
def progress(
    console: Console, total: int, table: TableOf
) -> Iterator[Callable[[Workload, str], None]]:
    """A function to call before each step: a live table and a bar on a terminal, else plain lines.

    Drawn between two measurements only: it must not take part in what it shows.
    """
    done = 0
    if not console.is_terminal:
        latest = None

        def say(workload: Workload, text: str) -> None:
            nonlocal done, latest
            done += 1
            if workload != latest:
                print(f"[{done}/{total}] {workload.label}", flush=True)
            latest = workload

        yield say
        return
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    task = bar.add_task("", total=total)
    with Live(bar, console=console, auto_refresh=False, transient=True) as live:

        def draw(workload: Workload, text: str) -> None:
            nonlocal done
            bar.update(task, completed=done, description=text)
            done += 1
            live.update(Group(table(workload), bar), refresh=True)

        yield draw
