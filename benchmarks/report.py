"""Makes one HTML page of a result: plots, tables, and what they were measured on and with.

The page needs nothing from anywhere else: its pictures are part of it.  It must not know how
anything was measured, nor how a plot is drawn (plots.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .drawing import COLOURS, INSTRUCTIONS, P50, P99, P999, SYSCALLS, median_of, show_number
from .plots import plots_of, to_svg
from .result import CPU, HIGHER_IS_BETTER, MEMORY, RATE, THREAD_SHARE, Cell, Result, Workload, ratio
from .show import plural

# Groups of workloads in the order of the page: title, and what it is about.
GROUPS = {
    "echo": ("Echo", "Every busy connection sends a request and waits for the whole echo."),
    "idle": (
        "Few busy beside many idle",
        "Does a request cost more where many connections are open and silent?",
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
        "redis-benchmark and wrk against the RESP and the HTTP server of the examples.",
    ),
}
COUNTS = ("System calls and instructions", "Counted with strace and callgrind, where available.")
NO_VALUE = "-"

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif; color: #222;
  max-width: 68rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; background: #fff; }
h1 { font-size: 1.7rem; margin: .6rem 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .3rem; padding-top: .8rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0060b0; }
figure { margin: 1.2rem 0 1.8rem; }
figure svg { width: 100%; height: auto; display: block; }
figure.narrow svg { max-width: 48rem; }
figcaption { color: #555; font-size: .87rem; max-width: 46rem; margin-top: .2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .16rem .42rem; text-align: right; white-space: nowrap; }
th { color: #555; font-weight: 600; vertical-align: bottom; border-bottom: 1px solid #bbb; }
td { border-bottom: 1px solid #eee; }
th:first-child, td:first-child, td.text { text-align: left; }
td.text { white-space: normal; color: #777; }
td small { color: #777; font-size: .82em; }
td.better { color: #0a7040; font-weight: 600; }
td.worse { color: #b03010; font-weight: 600; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2rem; }
tr.own td { background: #f2f8fd; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: #666; } dd { margin: 0; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: #0060b0; }
i.family { display: inline-block; width: .7em; height: .7em; border-radius: 2px;
  margin-right: .45em; }
"""


def tag(name: str, content: str, **attributes: str) -> str:
    """An element around HTML; `class_` gives the attribute class."""
    given = "".join(f' {key.rstrip("_")}="{escape(text)}"' for key, text in attributes.items())
    return f"<{name}{given}>{content}</{name}>"


def table(headings: Sequence[str], rows: Iterable[str]) -> str:
    """A table of rows that are HTML already; a heading's line breaks are kept."""
    head = "".join(tag("th", escape(text).replace("\n", "<br>")) for text in headings)
    body = "\n".join(rows)
    return tag("div", tag("table", f"<tr>{head}</tr>\n{body}"), class_="scroll")


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


def badge(result: Result, cell: Cell) -> str:
    """A server's name behind the colour of its family."""
    server = result.server(cell.server)
    colour = COLOURS.get(server.family, "#777777")
    return f'<i class="family" style="background:{colour}"></i>{escape(server.label)}'


# ---- at a glance ----------------------------------------------------------------


def figure_text(workload: Workload) -> str:
    """What a workload is about, with its unit."""
    return {
        CPU: f"CPU µs/{workload.unit}",
        RATE: f"{plural(workload.unit)}/s",
        MEMORY: "bytes/connection",
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
    """A ratio to the best peer as a cell, coloured by who is ahead."""
    kind = {}
    if value is not None and abs(value - 1) >= 0.005:
        kind = {"class_": "better" if (value > 1) == (name in HIGHER_IS_BETTER) else "worse"}
    return tag("td", factor(value), **kind)


def glance_row(result: Result, workload: Workload) -> str:
    """The limit, the best of each engine, and the best peer under one workload."""
    name = workload.figure
    limit, peer = result.cell("limit", workload.key), result.best_peer(workload.key, name)
    what = f"{escape(workload.label)} <small>{figure_text(workload)}</small>"
    cells = [tag("td", what), tag("td", number(limit.median(name) if limit else None))]
    for family in ("fastcore-c", "fastcore-python"):
        cell = best_of(result, workload, family)
        if cell is None:
            cells += [tag("td", NO_VALUE)] * 3
            continue
        handler = escape(result.server(cell.server).label.partition(", ")[2])
        cells.append(tag("td", f"<small>{handler}</small> {number(cell.median(name))}"))
        cells.append(tag("td", factor(ratio(cell, limit, name))))
        cells.append(verdict(ratio(cell, peer, name), name))
    text = NO_VALUE
    if peer is not None:
        label = escape(result.server(peer.server).label)
        text = f"<small>{label}</small> {number(peer.median(name))}"
    return tag("tr", "".join([*cells, tag("td", text)]))


def glance(result: Result) -> str:
    """One row for each workload; those beside a computing thread apart."""
    headings = ["workload", "limit"]
    for engine in ("C", "Python"):
        headings += [f"fastcore {engine}", "to\nlimit", "to best\npeer"]
    headings.append("best peer")
    measured = [w for w in result.workloads if any_figure(result, w)]
    if not measured:
        return ""
    words = (
        "The better of the handlers of each engine, as a multiple of the limit (a minimal program"
        " in C) and of the best peer under the same workload. For CPU time and memory less is"
        " better, for figures per second more; green is ahead of the best peer."
    )
    plain = [glance_row(result, w) for w in measured if not w.busy_thread]
    beside = [glance_row(result, w) for w in measured if w.busy_thread]
    parts = [tag("h2", "At a glance", id="glance"), tag("p", words)]
    if plain:
        parts.append(table(headings, plain))
    if beside:
        summary = tag("summary", "The same beside a thread that computes")
        parts.append(tag("details", summary + table(headings, beside)))
    return "\n".join(parts)


def any_figure(result: Result, workload: Workload) -> bool:
    """Whether anything was measured under a workload."""
    return any(cell.rounds for cell in result.row(workload.key))


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


def full_table(result: Result, workload: Workload) -> str:
    """Every figure of every server under one workload."""
    columns = columns_of(result, workload)
    rows = []
    for cell in result.row(workload.key):
        texts = [tag("td", badge(result, cell))]
        if cell.rounds or cell.counts:
            texts += [tag("td", text(cell)) for _, text in columns]
            if cell.failure:  # it failed later on
                texts.append(tag("td", escape(cell.failure), class_="text"))
        else:
            reason = escape(cell.failure or "not measured")
            texts.append(tag("td", reason, class_="text", colspan=str(max(len(columns), 1))))
        own = result.server(cell.server).family.startswith("fastcore")
        rows.append(tag("tr", "".join(texts), **({"class_": "own"} if own else {})))
    headings = ["server", *(heading for heading, _ in columns)]
    return tag("h3", escape(workload.label)) + table(headings, rows)


# ---- sections ---------------------------------------------------------------------


def pictures(result: Result, group: str) -> str:
    """The plots of a group with their captions."""
    parts = []
    for place, plot in enumerate(plots_of(result, group), 1):
        caption = escape(plot.caption)
        if plot.missing:
            caption += " Not on this plot: " + escape("; ".join(plot.missing)) + "."
        svg = to_svg(plot.figure, f"{group}{place}")
        shape = {"class_": "narrow"} if plot.figure.get_figwidth() < 9 else {}
        parts.append(
            tag("figure", svg + tag("figcaption", caption), id=f"plot-{group}-{place}", **shape)
        )
    return "\n".join(parts)


def section(result: Result, group: str, title: str, words: str) -> str:
    """One group: what it is about, its plots and its tables."""
    workloads = [w for w in result.workloads if w.group == group and result.row(w.key)]
    drawn = pictures(result, group)
    if not workloads and not drawn:
        return ""
    parts = [tag("h2", escape(title), id=group), tag("p", escape(words)), drawn]
    if workloads:
        tables = "\n".join(full_table(result, workload) for workload in workloads)
        parts.append(tag("details", tag("summary", "All figures") + tables))
    return "\n".join(parts)


def definitions(pairs: Iterable[tuple[str, object]]) -> str:
    """A list of names and what they stand for."""
    return tag(
        "dl",
        "".join(
            tag("dt", escape(str(name))) + tag("dd", escape(str(text)))
            for name, text in pairs
            if text is not None and text != ""
        ),
    )


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


def head(result: Result) -> str:
    """Machine, versions, notes, and what is missing."""
    about = result.about
    parts = [
        tag("h1", "fastcore benchmarks"),
        tag(
            "p",
            "Servers compared side by side, in turn within one run. CPU time is that of the"
            " server's process; every figure is the median of its rounds. Ratios mean more than"
            " absolute figures, and CPU time more than throughput.",
        ),
    ]
    machine = tag("h3", "Machine and run") + definitions(machine_text(result))
    versions = tag("h3", "Versions") + definitions(about.get("versions", {}).items())
    parts.append(tag("div", tag("div", machine) + tag("div", versions), class_="sides"))
    missing = [(server.label, server.missing) for server in result.servers if server.missing]
    if missing:
        parts += [tag("h3", "Missing servers"), definitions(missing)]
    if result.notes:
        notes = "".join(tag("li", escape(note)) for note in result.notes)
        parts += [tag("h3", "Notes"), tag("ul", notes)]
    return "\n".join(parts)


def render(result: Result) -> str:
    """The page."""
    sections = {
        group: (title, section(result, group, title, words))
        for group, (title, words) in {**GROUPS, "counts": COUNTS}.items()
    }
    sections = {group: both for group, both in sections.items() if both[1]}
    summary = glance(result)
    links = [tag("a", escape(title), href=f"#{group}") for group, (title, _) in sections.items()]
    body = [head(result), tag("nav", " ".join(links)), summary, *(t for _, t in sections.values())]
    if not sections:
        body.append(tag("p", "Nothing was measured."))
    date = escape(str(result.about.get("date", "")))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>fastcore benchmarks {date}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def write(result: Result, path: Path) -> None:
    """Write the page to a file."""
    path.write_text(render(result), encoding="utf-8")
