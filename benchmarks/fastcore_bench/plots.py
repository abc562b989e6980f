"""Which plots a result of the benchmarks has, and how they are written.

Both engines of fastcore are on every plot, wherever they were measured.  It must not know how
anything was measured, how lines are drawn (drawing.py), nor HTML (report.py).
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .drawing import (
    INSTRUCTIONS,
    P99,
    P999,
    SETTINGS,
    SYSCALLS,
    Panel,
    Plot,
    bars,
    lines,
    median_of,
)
from .result import CPU, P50, RATE, Result, ResultError, Workload, load
from .workloads import show_size

FONT = "'DejaVu Sans', Verdana, sans-serif"  # the first one may be missing where it is read
BUSY = "busy connections (number)"
IDLE = "idle connections (number)"


def usual(workloads: Sequence[Workload]) -> Workload:
    """The workload that most readers have in mind: about 100 busy connections, about 1 KiB."""

    def distance(workload: Workload) -> float:
        size = max(workload.size, 1)
        busy = max(workload.busy, 1)
        return max(busy, 100) / min(busy, 100) * max(size, 1024) / min(size, 1024)

    return min(workloads, key=distance)


def over_busy(workloads: Sequence[Workload], size: int) -> list[tuple[int, Workload]]:
    """The workloads of one size by their busy connections, one of each number."""
    by_busy: dict[int, Workload] = {}
    for workload in workloads:
        if workload.size == size:
            by_busy.setdefault(workload.busy, workload)
    return sorted(by_busy.items(), key=lambda pair: pair[0])


def echo_plots(result: Result, workloads: list[Workload]) -> Iterator[Plot | None]:
    """All servers under one workload; then every size over every number of connections."""
    one = usual(workloads)
    yield bars(result, "echo-all", f"All servers: {one.label}.", [(one, CPU), (one, RATE)])
    for name, figure, what in (
        ("echo-cpu", CPU, "CPU time per request"),
        ("echo-rate", RATE, "Throughput"),
    ):
        panels = [
            Panel(f"echo of {show_size(size)}", over_busy(workloads, size), figure)
            for size in sorted({workload.size for workload in workloads})
        ]
        yield lines(result, name, f"{what} over the number of busy connections.", panels, BUSY)
    points = over_busy(workloads, one.size)
    panels = [Panel("", points, figure) for figure in (P50, P99, P999)]
    caption = f"Latency of an echo of {show_size(one.size)}."
    yield lines(result, "echo-latency", caption, panels, BUSY, height=3.6)


def idle_plots(result: Result, workloads: list[Workload]) -> Iterator[Plot | None]:
    """Does the cost follow activity, or the number of connections?"""
    if not any(w.idle == 0 for w in workloads):  # measured as an echo, with more servers
        servers = {cell.server for w in workloads for cell in result.row(w.key)}
        result = replace(result, cells=[c for c in result.cells if c.server in servers])
        same = {(w.size, w.busy) for w in workloads}
        echo = [w for w in result.workloads if w.group == "echo" and (w.size, w.busy) in same]
        workloads = [*echo, *workloads]
    if len(workloads) == 1:
        yield bars(result, "idle-all", "", [(workloads[0], figure) for figure in (CPU, RATE, P99)])
        return
    points = sorted(((w.idle, w) for w in workloads), key=lambda pair: pair[0])
    busy = ", ".join(f"{count:,}" for count in sorted({w.busy for w in workloads}))
    caption = (
        f"CPU time per request of {busy} busy connections over the number of idle ones beside"
        " them, both logarithmic."
    )
    yield lines(result, "idle-cpu", caption, [Panel("", points, CPU)], IDLE, height=4.6)
    panels = [Panel("", points, figure) for figure in (P50, P99, P999)]
    yield lines(result, "idle-latency", "Latency of the same requests.", panels, IDLE, height=3.6)


def computing_plots(result: Result, workloads: list[Workload]) -> Iterator[Plot | None]:
    """Echo beside a thread that computes, and what else was measured beside one."""
    echo = [w for w in workloads if w.protocol == "echo" and not w.idle]
    if echo:
        one = usual(echo)
        caption = "A thread computes in pure Python beside the loop."
        yield bars(result, "computing-all", caption, [(one, RATE), (one, CPU), (one, P99)])
        panels = [Panel("", over_busy(echo, one.size), figure) for figure in (RATE, CPU, P99)]
        caption = "The same over the number of busy connections."
        yield lines(result, "computing-lines", caption, panels, BUSY, height=3.6)
    for chosen in pairs(result, [w for w in workloads if w not in echo]):
        name = "-".join(w.key for w in chosen)
        caption = "Beside a computing thread."
        yield bars(result, name, caption, [(w, RATE) for w in chosen])


def pairs(result: Result, workloads: Sequence[Workload]) -> Iterator[list[Workload]]:
    """Two workloads at a time, where they are for the same servers and share their rows."""
    waiting: Workload | None = None
    for workload in workloads:
        if waiting is None:
            waiting = workload
        elif {c.server for c in result.row(waiting.key)} == {
            c.server for c in result.row(workload.key)
        }:
            yield [waiting, workload]
            waiting = None
        else:
            yield [waiting]
            waiting = workload
    if waiting is not None:
        yield [waiting]


def bar_plots(result: Result, workloads: list[Workload]) -> Iterator[Plot | None]:
    """The figure that each workload is about, its CPU time and its throughput."""
    for chosen in pairs(result, workloads):
        panels = [
            (workload, figure)
            for workload in chosen
            for figure in dict.fromkeys((workload.figure, CPU, RATE))
            if workload.group != "memory" or figure == workload.figure
        ]
        yield bars(result, "-".join(w.key for w in chosen), "", panels)


def count_plots(result: Result) -> Iterator[Plot | None]:
    """System calls and instructions, where they were counted."""
    for workload in result.workloads:
        counted = [c for c in result.row(workload.key) if median_of(c, SYSCALLS)]
        counted += [c for c in result.row(workload.key) if median_of(c, INSTRUCTIONS)]
        if counted:
            # Counting takes one connection, however many the workload has.
            label = re.sub(r", [\d,]+ busy", ", one connection", workload.label)
            one = replace(workload, label=label)
            panels = [(one, SYSCALLS), (one, INSTRUCTIONS)]
            caption = "Counted once, with a single connection; instructions of some servers only."
            yield bars(result, f"counts-{workload.key}", caption, panels)


DRAWN_BY = {"echo": echo_plots, "idle": idle_plots, "computing": computing_plots}


def plots_of(result: Result, group: str) -> list[Plot]:
    """The plots of one group of workloads, or of the group "counts"."""
    workloads = [workload for workload in result.workloads if workload.group == group]
    with matplotlib.rc_context(SETTINGS):
        if group == "counts":
            found = list(count_plots(result))
        elif workloads:
            found = list(DRAWN_BY.get(group, bar_plots)(result, workloads))
        else:
            found = []
    return [plot for plot in found if plot is not None]


# ---- writing --------------------------------------------------------------------


# What matplotlib writes and a page has no need of: what to look for, and what to put instead.
NEEDLESS = (
    (r"\s*<metadata>.*?</metadata>", ""),
    (r' (?:width|height)="[\d.]+pt"', ""),  # as wide as the page allows
    (r'<g id="[^"]*">', "<g>"),
    (r' transform="rotate\(-0 [^"]*"', ""),
    (r"; font-family: [^;\"]*", ""),  # once for all, below
    (r"\n\s*", "\n"),
)


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element for a page; its ids begin with `name`."""
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for what, instead in NEEDLESS:
        text = re.sub(what, instead, text, flags=re.DOTALL)
    # Hundredths of a point are enough; what is written on the plot stays as it is.
    text = re.sub("<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    return text.replace("<svg", f'<svg style="font-family: {FONT}" role="img"', 1)


# The plots that stand for the whole where there is room for a few only.
PICTURES = (("echo", "echo-all"), ("echo", "echo-rate"), ("idle", "idle-cpu"))


def write_pictures(
    result: Result, folder: Path, formats: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write the plots that a README shows, as far as the result has them; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for group, name in PICTURES:
        for plot in plots_of(result, group):
            if plot.name != name:
                continue
            for kind in formats:
                path = folder / f"{name}.{kind}"
                with matplotlib.rc_context(SETTINGS):
                    metadata = {"Date": None} if kind == "svg" else None
                    plot.figure.savefig(path, format=kind, dpi=150, metadata=metadata)
                written.append(path)
    return written


def main() -> int:
    """Write the pictures of a kept result into a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m fastcore_bench.plots", description="Write a few plots of a result."
    )
    parser.add_argument("result", type=Path, metavar="RESULT")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    try:
        written = write_pictures(load(options.result), options.folder)
    except (ResultError, OSError) as error:
        parser.error(str(error))
    for path in written:
        print(path)
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
