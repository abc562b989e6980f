"""Makes one HTML page of a result: plots, tables, and what they were measured on and with.

Here is what the page says; how it looks is in report.html.  It must not know how anything was
measured, nor how a plot is drawn (plots.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .drawing import COLOURS, INSTRUCTIONS, P99, P999, SYSCALLS, median_of, show_number
from .plots import plots_of, to_svg
from .result import (
    CPU,
    ENGINES,
    HIGHER_IS_BETTER,
    MEMORY,
    P50,
    RATE,
    THREAD_SHARE,
    Cell,
    Result,
    Workload,
    ratio,
)
from .show import plural

# Groups of workloads in the order of the page: title, and what it is about.
GROUPS = {
    "echo": ("Echo", "Every busy connection sends a request and waits for the whole echo."),
    "idle": (
        "Few busy beside many idle",
        "Does a request cost more where many connections are open and silent?",
    ),
    "few": (
        "Few connections",
        "One or ten busy ones beside thirty: what the turns of a loop cost that has little to do.",
    ),
    "answered": (
        "Answered by threads",
        "A pool of threads answers, leaves it in the channel's buffer and pulls a trigger: how long"
        " until the loop asks that channel?",
    ),
    "relay": (
        "Relay",
        "Two channels for each client, of which each one makes the other want to write.",
    ),
    "mixed": ("Many busy beside many idle", "A full server: much to do, and much that waits."),
    "line": ("Line protocol", "Requests and replies are lines; some clients send many ahead."),
    "churn": ("Connections that come and go", "Connect, send, receive, close, and again."),
    "accept": ("Accepting", "Many clients connect at once; each waits for one byte."),
    "broadcast": ("Broadcast", "One message goes to every peer; each delivery counts."),
    "transfer": ("Large transfers", "One large body, sent by the server or to it."),
    "memory": ("Memory", "What the server's process grows by, for each idle connection."),
    "timers": ("Timers", "Setting and cancelling them, and serving with many of them pending."),
    "wakeups": ("Wake-ups", "Another thread wakes the loop."),
    "computing": (
        "Beside a computing thread",
        "The same once more while a second thread of the server computes in pure Python.",
    ),
    "tools": (
        "Tools that users know",
        "redis-benchmark and wrk against servers of their protocols on async_chat.",
    ),
}
COUNTS = ("System calls and instructions", "Counted with strace and callgrind, where available.")
NO_VALUE = "-"
WORST = 20  # rows of each engine where it is worst

PAGES = Environment(
    loader=PackageLoader(__package__, "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def number(value: float | None) -> str:
    """A figure for a table."""
    return NO_VALUE if value is None else show_number(value) if value else "0"


def factor(value: float | None) -> str:
    """A ratio for a table."""
    return NO_VALUE if value is None else f"{value:,.2f}"


def spread_text(cell: Cell, name: str) -> str:
    """The quartiles of a figure."""
    spread = cell.spread(name)
    return NO_VALUE if spread is None else " to ".join(map(number, spread))


# ---- at a glance ----------------------------------------------------------------


def figure_text(workload: Workload) -> str:
    """What a workload is about, with its unit."""
    return {
        CPU: f"CPU µs/{workload.unit}",
        RATE: f"{plural(workload.unit)}/s",
        MEMORY: "bytes/connection",
        P50: "p50 µs",
    }.get(workload.figure, workload.figure)


def best_of(result: Result, workload: Workload, family: str) -> Cell | None:
    """The best cell of a family under a workload."""
    name = workload.figure
    found = [
        (value, cell)
        for cell in result.row(workload.key)
        if result.server(cell.server).family == family and (value := cell.median(name)) is not None
    ]
    choose = max if name in HIGHER_IS_BETTER else min
    return choose(found, key=lambda pair: pair[0])[1] if found else None


def verdict(value: float | None, name: str) -> str:
    """Who is ahead, by a ratio to the best peer."""
    if value is None or abs(value - 1) < 0.005:
        return ""
    return "better" if (value > 1) == (name in HIGHER_IS_BETTER) else "worse"


def glance_row(result: Result, workload: Workload) -> dict[str, Any]:
    """The limit, the best of each engine, and the best peer under one workload."""
    name = workload.figure
    limit, peer = result.cell("limit", workload.key), result.best_peer(workload.key, name)
    engines = []
    for family in ENGINES:
        cell = best_of(result, workload, family)
        label = result.server(cell.server).label if cell else ""
        to_peer = ratio(cell, peer, name) if cell else None
        engines.append(
            {
                "handler": label.partition(", ")[2],
                "value": number(cell.median(name) if cell else None),
                "to_limit": factor(ratio(cell, limit, name) if cell else None),
                "to_peer": factor(to_peer),
                "verdict": verdict(to_peer, name),
            }
        )
    return {
        "label": workload.label,
        "unit": figure_text(workload),
        "limit": number(limit.median(name) if limit else None),
        "engines": engines,
        "peer": result.server(peer.server).label if peer else "",
        "peer_value": number(peer.median(name) if peer else None),
    }


# ---- the worst rows -----------------------------------------------------------


def worst_rows(result: Result, family: str) -> list[dict[str, Any]]:
    """The rows where an engine is worst beside the best peer."""
    found = []
    for worse, cell, peer in result.worst_rows(family)[:WORST]:
        workload = result.workload(cell.workload)
        name = workload.figure
        found.append(
            {
                "label": workload.label,
                "unit": figure_text(workload),
                "server": result.server(cell.server),
                "value": number(cell.median(name)),
                "to_limit": factor(result.ratio_to_limit(cell, name)),
                "worse": factor(worse),
                "verdict": verdict(worse, CPU),
                "peer": result.server(peer.server),
                "peer_value": number(peer.median(name)),
            }
        )
    return found


# ---- full tables ------------------------------------------------------------------


def columns_of(result: Result, workload: Workload) -> list[tuple[str, Any]]:
    """Headings and functions that make a cell's text; none that would stay empty."""
    name = workload.figure

    def plain(figure: str) -> Any:
        return lambda cell: number(median_of(cell, figure))

    found = [
        (f"{plural(workload.unit)}\n/s", plain(RATE)),
        (f"CPU µs\n/{workload.unit}", plain(CPU)),
        *([("bytes\n/connection", plain(MEMORY))] if name == MEMORY else []),
        (f"quartiles of\n{figure_text(workload)}", lambda cell: spread_text(cell, name)),
        ("to\nlimit", lambda cell: factor(result.ratio_to_limit(cell, name))),
        ("to best\npeer", lambda cell: factor(result.ratio_to_best_peer(cell, name))),
        ("p50\nµs", plain(P50)),
        ("p99\nµs", plain(P99)),
        ("p99.9\nµs", plain(P999)),
        ("thread's\ncores", plain(THREAD_SHARE)),
        (f"system calls\n/{workload.unit}", plain(SYSCALLS)),
        (f"instructions\n/{workload.unit}", plain(INSTRUCTIONS)),
        ("errors", lambda cell: str(cell.errors or NO_VALUE)),
    ]
    cells = [cell for cell in result.row(workload.key) if cell.rounds or cell.counts]
    return [
        (heading, text) for heading, text in found if {text(cell) for cell in cells} - {NO_VALUE}
    ]


def full_table(result: Result, workload: Workload) -> dict[str, Any]:
    """Every figure of every server under one workload."""
    columns = columns_of(result, workload)
    rows = []
    for cell in result.row(workload.key):
        known = bool(cell.rounds or cell.counts)
        rows.append(
            {
                "server": result.server(cell.server),
                "texts": [text(cell) for _, text in columns] if known else [],
                # A server that has figures may have failed later on.
                "reason": cell.failure or ("" if known else "not measured"),
            }
        )
    headings = [heading for heading, _ in columns]
    return {"label": workload.label, "headings": headings, "rows": rows}


# ---- the page -----------------------------------------------------------------------


def pictures(result: Result, group: str) -> list[dict[str, Any]]:
    """The plots of a group with their captions."""
    found = []
    for place, plot in enumerate(plots_of(result, group), 1):
        missing = f" Not on this plot: {'; '.join(plot.missing)}." if plot.missing else ""
        found.append(
            {
                "svg": to_svg(plot.figure, f"{group}{place}"),
                "caption": plot.caption + missing,
                "narrow": plot.figure.get_figwidth() < 9,
            }
        )
    return found


def sections(result: Result) -> list[dict[str, Any]]:
    """What the page has of each group: what it is about, its plots and its tables."""
    found = []
    for group, (title, words) in {**GROUPS, "counts": COUNTS}.items():
        workloads = [w for w in result.workloads if w.group == group and result.row(w.key)]
        drawn = pictures(result, group)
        if workloads or drawn:
            tables = [full_table(result, workload) for workload in workloads]
            about = {"group": group, "title": title, "words": words}
            found.append({**about, "pictures": drawn, "tables": tables})
    return found


def machine_text(result: Result) -> list[tuple[str, object]]:
    """Where, when and for how long."""
    about, machine = result.about, result.about.get("machine", {})
    memory = machine.get("memory_bytes")
    pinned = machine.get("pinned")
    duration = about.get("duration_s")
    return [
        ("date", about.get("started") or about.get("date")),
        ("duration", None if duration is None else f"{duration / 60:.1f} min"),
        ("kind of run", "quick: a selection, short rounds" if about.get("quick") else "full"),
        ("system", machine.get("system")),
        ("processor", machine.get("cpu")),
        ("cores", machine.get("cores")),
        ("memory", None if memory is None else f"{memory / 2**30:.1f} GiB"),
        ("limit of open files", machine.get("descriptor_limit")),
        (
            "pinning",
            {True: "server and load on a core of their own", False: "none"}.get(pinned),
        ),
    ]


def render(result: Result) -> str:
    """The page."""
    measured = [w for w in result.workloads if any(cell.rounds for cell in result.row(w.key))]
    return PAGES.get_template("report.html").render(
        result=result,
        colours=COLOURS,
        machine=machine_text(result),
        missing=[(server.label, server.missing) for server in result.servers if server.missing],
        plain=[glance_row(result, w) for w in measured if not w.busy_thread],
        beside=[glance_row(result, w) for w in measured if w.busy_thread],
        worst={name: worst_rows(result, family) for family, name in ENGINES.items()},
        sections=sections(result),
    )


def write(result: Result, path: Path) -> None:
    """Write the page to a file."""
    path.write_text(render(result), encoding="utf-8")
