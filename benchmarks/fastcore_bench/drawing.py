"""Draws with matplotlib: lines over numbers of connections, and bars.

Axes have units, and each family of servers has its colour.  It must not know which plots a report
shows (plots.py), nor how anything was measured.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .result import (
    CPU,
    HIGHER_IS_BETTER,
    MEMORY,
    P50,
    RATE,
    Cell,
    Result,
    Server,
    Workload,
    quartiles,
)
from .show import MISSING, plural, row_word

P99, P999 = "p99_us", "p999_us"
SYSCALLS, INSTRUCTIONS = COUNTED = ("syscalls_per_request", "instructions_per_request")

COLOURS = {
    "limit": "#333333",
    "floor": "#777777",
    "fastcore-c": "#0060b0",
    "fastcore-python": "#45a8e0",
    "pyasyncore": "#d0501c",
    "asyncio": "#b8609c",
    "uvloop": "#1f9060",
    "rloop": "#7a9a1f",
    "gevent": "#d69a00",
    "pyftpdlib": "#8b6f47",
    "socketserver": "#9a9a9a",
}
# Several servers of one family differ by the end of their keys.
STYLES = {
    "tutorial": ("--", "s"),
    "with-send": (":", "^"),
    "chat": ("-", "D"),
    "strict": ("-.", "v"),
    "streams": ("--", "s"),
    "forking": ("--", "s"),
    "limit": (":", "o"),
}
LINES_OF_A_FAMILY = {"fastcore-c": 2}  # one of every other: more are too many to read
WIDTH, NARROW = 10.0, 7.5  # inches, of several panels and of one
NO_ANSWER = "no answer"  # what row_word() says of a server that was there and had its time
# What a reader has to know of every plot, and of some.
QUARTILES = "A bar is the median, the black line on it reaches from quartile to quartile."
TOO_LONG = " >> is a bar that is too long for the page."
BAND = "A line joins medians, its band reaches from quartile to quartile."
CROSS = " A cross at the top is a server that gave no answer."
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and found by a search in the page
    "svg.hashsalt": "fastcore",  # the same result gives the same file
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


@dataclass
class Plot:
    """One figure; `missing` says which of fastcore's engines it lacks, and why."""

    name: str
    caption: str
    figure: Figure
    missing: list[str] = field(default_factory=list)


# ---- figures and their units ------------------------------------------------


def axis_label(name: str, unit: str) -> str:
    """A figure and its unit."""
    return {
        CPU: f"CPU time per {unit} (µs)",
        RATE: f"throughput ({plural(unit)}/s)",
        MEMORY: "memory per idle connection (bytes)",
        P50: "latency, median (µs)",
        P99: "latency, 99th percentile (µs)",
        P999: "latency, 99.9th percentile (µs)",
        SYSCALLS: f"system calls per {unit} (number)",
        INSTRUCTIONS: f"instructions per {unit} (number)",
    }[name]


def values_of(cell: Cell, name: str) -> list[float]:
    """A figure of each round, or the one value of what is counted once."""
    if name in COUNTED:
        value = (cell.counts or {}).get(name)
        return [] if value is None else [value]
    return cell.values(name)


def median_of(cell: Cell | None, name: str) -> float | None:
    """The median of a figure, where there is one."""
    if cell is None:
        return None
    if name in COUNTED:
        return (cell.counts or {}).get(name)
    return cell.median(name)


def show_number(value: float) -> str:
    """Three digits that count, in a form that is easy to read."""
    if value >= 1e6:
        return f"{value / 1e6:#.3g}M"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def show_tick(value: float, _position: object = None) -> str:
    """A number on an axis."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def style(server: Server) -> tuple[str, str, str]:
    """Colour, dashes and marker."""
    dashes, marker = next(
        (how for end, how in STYLES.items() if server.key.endswith(end)), ("-", "o")
    )
    return COLOURS.get(server.family, "#777777"), dashes, marker


def engines_missing(result: Result, shown: Iterable[Server]) -> list[str]:
    """Which of fastcore's engines are not among those shown, and why."""
    families = {server.family for server in shown}
    lacking = []
    for family, name in (("fastcore-c", "C"), ("fastcore-python", "Python")):
        if family not in families:
            reasons = [s.missing for s in result.servers if s.family == family and s.missing]
            lacking.append(f"fastcore {name}: {reasons[0] if reasons else 'not measured'}")
    return lacking


# ---- lines --------------------------------------------------------------------


@dataclass
class Panel:
    """One pair of axes: a figure of some workloads over their numbers of connections."""

    title: str
    points: list[tuple[int, Workload]]
    name: str


def line_servers(result: Result, panels: Sequence[Panel]) -> list[Server]:
    """The servers to draw: those with the most points, few of each family."""
    keys = {workload.key for panel in panels for _, workload in panel.points}
    counts: dict[str, int] = {}
    for cell in result.cells:
        if cell.workload in keys and any(median_of(cell, panel.name) for panel in panels):
            counts[cell.server] = counts.get(cell.server, 0) + 1
    chosen: list[str] = []
    for family in dict.fromkeys(server.family for server in result.servers):
        members = [s.key for s in result.servers if s.family == family and s.key in counts]
        members.sort(key=lambda key: -counts[key])
        chosen += members[: LINES_OF_A_FAMILY.get(family, 1)]
    return [server for server in result.servers if server.key in chosen]


def draw_line(axes: Axes, result: Result, panel: Panel, server: Server, zero: float) -> None:
    """One server's medians over the numbers of connections; a band shows the quartiles."""
    xs: list[float] = []
    medians, lows, highs = [], [], []
    for x, workload in panel.points:
        cell = result.cell(server.key, workload.key)
        value = median_of(cell, panel.name)
        spread = quartiles(values_of(cell, panel.name)) if cell else None
        if value and spread:
            xs.append(x or zero)
            medians.append(value)
            lows.append(spread[0])
            highs.append(spread[1])
    if not xs:
        return
    colour, dashes, marker = style(server)
    front = 3 if server.family.startswith("fastcore") else 2
    axes.plot(xs, medians, dashes, marker=marker, color=colour, zorder=front, label=server.label)
    axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0, zorder=1)


def scale_axes(axes: Axes, panel: Panel, zero: float) -> None:
    """Both logarithmic, with ticks at what was measured; none idle stands left of the others."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    at = sorted({x for x, _ in panel.points})
    axes.set_xticks([x or zero for x in at], [show_tick(x) for x in at])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim((at[0] or zero) / 1.5, max(at[-1], zero) * 1.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(show_tick))
    axes.yaxis.set_minor_locator(NullLocator())


def lines(
    result: Result, name: str, caption: str, panels: list[Panel], xlabel: str, height: float = 3.4
) -> Plot | None:
    """Panels over the same kind of numbers, each with its own scale.

    None where there are no figures, or where there is one number only: nothing to join.

    `height` is that of a row of panels, in inches; four panels make two rows.
    """
    panels = [panel for panel in panels if len(panel.points) > 1]
    servers = line_servers(result, panels)
    if not servers:
        return None
    columns = len(panels) if len(panels) < 4 else 2
    rows = math.ceil(len(panels) / columns)
    width = WIDTH if columns > 1 else NARROW
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, result, panel, servers)
        axes.set_xlabel(xlabel)
        found, labels = axes.get_legend_handles_labels()
        handles.update(zip(labels, found, strict=True))
    ordered = [server.label for server in servers if server.label in handles]
    figure.legend(
        [handles[label] for label in ordered],
        ordered,
        loc="outside lower center",
        ncols=4 if columns > 1 else 3,
        handlelength=3,
    )
    silent = any(line.get_marker() == "x" for axes in grid.flat for line in axes.lines)
    caption = f"{caption} {BAND}{CROSS if silent else ''}"
    return Plot(name, caption, figure, engines_missing(result, servers))


def draw_panel(axes: Axes, result: Result, panel: Panel, servers: Sequence[Server]) -> None:
    """The lines of all servers, and a cross at the top for each that gave no answer."""
    positive = [x for x, _ in panel.points if x]
    zero = min(positive) / 10 if positive else 1.0
    for server in servers:
        draw_line(axes, result, panel, server, zero)
    scale_axes(axes, panel, zero)
    top = axes.get_xaxis_transform()  # y in parts of the height
    for x, workload in panel.points:
        failed = [
            server
            for server in servers
            if (cell := result.cell(server.key, workload.key))
            and cell.failure
            and row_word(cell) == NO_ANSWER
        ]
        for place, server in enumerate(failed):
            at = (x or zero, 0.97 - 0.05 * place)
            colour = style(server)[0]
            axes.plot(*at, "x", color=colour, transform=top, markersize=6, markeredgewidth=2)
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel(axis_label(panel.name, panel.points[0][1].unit))


# ---- bars ---------------------------------------------------------------------


def draw_bar(
    axes: Axes, row: int, server: Server, cell: Cell | None, name: str, end: float
) -> None:
    """One server's median with its quartiles as a black line, or a word for why there is none.

    A bar longer than `end` is cut there.
    """
    value = median_of(cell, name)
    if cell is None or value is None:
        word = why_no_bar(server, cell)
        left = axes.get_yaxis_transform()  # x in parts of the width, y in rows
        axes.text(0.01, row, word, transform=left, va="center", color="#888888", fontsize=8)
        return
    low, high = quartiles(values_of(cell, name)) or (value, value)
    colour = COLOURS.get(server.family, "#777777")
    axes.barh(row, min(value, end), height=0.68, color=colour, zorder=2)
    number, offset, side, ink = show_number(value), 4, "left", "black"
    if value > end:
        number, offset, side, ink = f"{number} >>", -4, "right", "white"
    elif high > low:
        axes.plot([low, min(high, end)], [row, row], color="black", linewidth=0.9, zorder=3)
    axes.annotate(
        number,
        (min(max(value, high), end), row),
        xytext=(offset, 0),
        textcoords="offset points",
        va="center",
        ha=side,
        color=ink,
        fontsize=8,
    )


def why_no_bar(server: Server, cell: Cell | None) -> str:
    """A word in its place; nothing where the server does not take part."""
    if cell is None:
        return ""
    if server.missing:
        return MISSING
    return "not known" if cell.rounds else row_word(cell)


def end_of_axis(values: Sequence[float], name: str) -> float:
    """Where bars are cut, so that a few very bad ones leave the others readable."""
    usual = 10 * statistics.median(values)
    if name in HIGHER_IS_BETTER or max(values) <= usual:
        return max(values)
    return 1.25 * max(value for value in values if value <= usual)


def bars(
    result: Result, name: str, caption: str, panels: list[tuple[Workload, str]]
) -> Plot | None:
    """One row for each server, one panel for each figure of a workload."""
    panels = [
        (workload, figure)
        for workload, figure in panels
        if any(median_of(cell, figure) is not None for cell in result.row(workload.key))
    ]
    if not panels:
        return None
    taking_part = {cell.server for workload, _ in panels for cell in result.row(workload.key)}
    servers = [server for server in result.servers if server.key in taking_part]
    figure = Figure(
        figsize=(WIDTH if len(panels) > 1 else NARROW, 0.75 + 0.23 * len(servers)),
        layout="constrained",
    )
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    titled, cut = None, False
    title_width = 90 // len({workload.key for workload, _ in panels})  # letters
    for axes, (workload, figure_name) in zip(grid.flat, panels, strict=True):
        cells = [result.cell(server.key, workload.key) for server in servers]
        known = [value for cell in cells if (value := median_of(cell, figure_name)) is not None]
        end = end_of_axis(known, figure_name)
        cut = cut or max(known) > end
        for row, (server, cell) in enumerate(zip(servers, cells, strict=True)):
            draw_bar(axes, row, server, cell, figure_name, end)
        axes.set_xlim(0, end * (1.3 if len(panels) > 2 else 1.18) or 1)  # room for the numbers
        if workload is not titled:
            titled = workload
            axes.set_title(textwrap.fill(workload.label, title_width), loc="left")
        axes.set_xlabel(axis_label(figure_name, workload.unit))
        axes.xaxis.set_major_locator(MaxNLocator(5 if len(panels) < 3 else 3))
        axes.xaxis.set_major_formatter(FuncFormatter(show_tick))
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    grid.flat[0].set_yticks(range(len(servers)), [server.label for server in servers])
    grid.flat[0].set_ylim(len(servers) - 0.4, -0.6)
    if any(figure_name not in COUNTED for _, figure_name in panels):
        caption = f"{caption} {QUARTILES}"
    caption = f"{caption}{TOO_LONG if cut else ''}".strip()
    return Plot(name, caption, figure, engines_missing(result, servers))
