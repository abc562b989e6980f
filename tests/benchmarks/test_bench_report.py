"""The report of the benchmarks, made from small results and read as HTML and SVG.

What it looks like only eyes can judge; here it is that everything is there: both engines on every
plot, units on every axis, and a word for whatever is missing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("jinja2", reason="jinja2 is not installed")

from fastcore_bench import command, drawing, plots, report, result, workloads
from fastcore_bench.result import Cell, Result, Server, Workload

SERVERS = [
    Server("limit", "limit: C epoll", "limit"),
    Server("floor-direct", "floor: C loop, recv/send", "floor"),
    Server("fastcore-c-direct", "fastcore C, recv/send", "fastcore-c"),
    Server("fastcore-c-tutorial", "fastcore C, tutorial", "fastcore-c"),
    Server("fastcore-python-direct", "fastcore Python, recv/send", "fastcore-python"),
    Server("pyasyncore-direct", "pyasyncore, recv/send", "pyasyncore"),
    Server("uvloop-protocol", "uvloop <Protocol>", "uvloop"),
]
COSTS = dict(zip((s.key for s in SERVERS), (5.0, 5.2, 5.5, 6.0, 9.0, 10.0, 7.0), strict=True))
WORKLOADS = [
    *(
        Workload(f"echo-{size}-{busy}", f"echo {size} B, {busy} busy", "echo", "echo", size, busy)
        for size in (64, 1024)
        for busy in (1, 100)
    ),
    *(Workload(f"idle-{n}", f"10 + {n} idle", "idle", "echo", 1024, 10, n) for n in (0, 1000)),
    Workload("few", "1 busy + 30 idle", "few", "echo", 1024, 1, 30),
    Workload("answered", "by threads", "answered", "answered", figure=result.P50),
    *(Workload(f"relay-{n}", f"relay, {n} idle", "relay", "relay", idle=n) for n in (0, 50)),
    Workload("mixed", "1,000 + 9,000 idle", "mixed", "echo", 1024, 1000, 9000),
    Workload("line-1", "lines, 1", "line", "line", 64, 100, unit="line"),
    Workload("line-16", "lines, 16", "line", "line", 64, 100, in_flight=16, unit="line"),
    Workload("churn", "connect & close", "churn", "churn", 64, 10, unit="connection"),
    Workload(
        "accept", "accept", "accept", "accept", requests=100, unit="connection", figure=result.RATE
    ),
    Workload("broadcast", "broadcast", "broadcast", "broadcast", 64, 500, unit="delivery"),
    Workload("download", "download", "transfer", "download", 1 << 20, unit="MiB"),
    Workload("upload", "upload", "transfer", "upload", 1 << 20, unit="MiB"),
    Workload("memory", "memory", "memory", "echo", idle=100, figure=result.MEMORY),
    Workload("timers", "timers", "timers", "timers", unit="timer"),
    Workload("wakeups", "wake-ups", "wakeups", "wakeups", unit="wakeup"),
    *(
        Workload(
            f"computing-{busy}", f"computing, {busy}", "computing", "echo", 1024, busy,
            busy_thread=True,
        )
        for busy in (1, 100)
    ),
    Workload("computing-line", "computing, lines", "computing", "line", 64, 100, busy_thread=True),
    Workload("redis", "redis-benchmark GET", "tools", "resp-get", 3, 50),
]  # fmt: skip
KEPT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "2026-11-22.json"
GROUPS = list(dict.fromkeys(workload.group for workload in WORKLOADS))


def rounds(cost: float, workload: Workload) -> list[dict[str, Any]]:
    """Three rounds that differ a little."""
    return [
        {
            "round": number,
            "requests": 1000,
            "seconds": 0.2,
            result.RATE: 1e6 / cost,
            result.CPU: cost * (1 + number / 50),
            result.MEMORY: 100 * cost,
            "p50_us": cost * workload.busy,
            "p99_us": cost * workload.busy * 2,
            "p999_us": cost * workload.busy * 3,
            "errors": 0,
        }
        for number in range(3)
    ]


def make_result(*groups: str) -> Result:
    """Every server under every workload of some groups."""
    workloads = [workload for workload in WORKLOADS if workload.group in groups]
    cells = [Cell(s.key, w.key, rounds(COSTS[s.key], w)) for w in workloads for s in SERVERS]
    for cell in cells:
        if cell.workload == "echo-1024-1":
            cell.counts = {"syscalls_per_request": 3.0, "instructions_per_request": 11_400.0}
    about = {
        "date": "2026-01-02",
        "started": "2026-01-02T03:04:05+00:00",
        "duration_s": 90.0,
        "quick": False,
        "machine": {"system": "Linux", "cpu": "A <fast> one", "cores": 4, "memory_bytes": 1 << 33},
        "versions": {"python": "3.13.0", "uvloop": "0.21"},
    }
    return Result(about, list(SERVERS), workloads, cells, ["A note & <more>."])


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[drawing.Plot]]:
    """All plots of everything, by group."""
    made = make_result(*GROUPS)
    return {group: plots.plots_of(made, group) for group in [*GROUPS, "counts"]}


class Page(HTMLParser):
    """Checks that elements nest, and collects what is in them."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.foreign: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src") and value:
                (self.links if value.startswith("#") else self.foreign).append(value)
        if tag in ("script", "link", "img", "iframe"):
            self.foreign.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def svg_texts(plot: drawing.Plot) -> list[str]:
    """All text of a plot, from its SVG."""
    root = ElementTree.fromstring(plots.to_svg(plot.figure, "x"))
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


# ---- plots -------------------------------------------------------------------

UNIT = re.compile(r".+ \((µs|number|bytes|[a-zA-Z]+/s)\)")


@pytest.mark.parametrize("group", [*GROUPS, "counts"])
def test_plots_have_units_and_both_engines(
    drawn: dict[str, list[drawing.Plot]], group: str
) -> None:
    """Of every plot, from what is in its SVG and from its axes."""
    assert drawn[group]
    for plot in drawn[group]:
        texts = svg_texts(plot)
        for engine in ("fastcore C", "fastcore Python"):
            assert any(text.startswith(engine) for text in texts), (plot.name, texts)
        assert plot.missing == []
        assert plot.caption
        for axes in plot.figure.get_axes():
            assert UNIT.fullmatch(axes.get_xlabel()), plot.name
            assert axes.get_xlabel() in texts
            if axes.lines and axes.get_xscale() == "log":
                assert UNIT.fullmatch(axes.get_ylabel()), plot.name


def test_the_plots_that_are_asked_for(drawn: dict[str, list[drawing.Plot]]) -> None:
    names = [plot.name for found in drawn.values() for plot in found]
    assert len(names) == len(set(names))
    idle = next(plot for plot in drawn["idle"] if plot.name == "idle-cpu")
    (axes,) = idle.figure.get_axes()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "idle connections (number)"
    assert axes.get_ylabel() == "CPU time per request (µs)"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1k"]
    echo = {plot.name: plot for plot in drawn["echo"]}
    titles = [axes.get_title(loc="left") for axes in echo["echo-cpu"].figure.get_axes()]
    assert titles == ["echo of 64 B", "echo of 1 KiB"]
    labels = [axes.get_ylabel() for axes in echo["echo-latency"].figure.get_axes()]
    assert labels == [
        f"latency, {which} (µs)" for which in ("median", "99th percentile", "99.9th percentile")
    ]


def test_families_keep_their_colours(drawn: dict[str, list[drawing.Plot]]) -> None:
    assert set(drawing.COLOURS) == set(result.FAMILIES)
    families = {server.label: server.family for server in SERVERS}
    seen = set()
    for plot in [plot for found in drawn.values() for plot in found]:
        for line in [line for axes in plot.figure.get_axes() for line in axes.lines]:
            family = families.get(line.get_label())
            if family is not None:
                assert line.get_color() == drawing.COLOURS[family]
                seen.add(family)
    assert seen == set(families.values())


def test_legends_stand_beside_the_data(drawn: dict[str, list[drawing.Plot]]) -> None:
    for plot in drawn["echo"]:
        plot.figure.draw_without_rendering()
        for legend in plot.figure.legends:
            box = legend.get_window_extent()
            for axes in plot.figure.get_axes():
                assert not box.overlaps(axes.get_tightbbox())


def test_an_engine_that_is_missing_is_named() -> None:
    made = make_result("echo")
    reason = "installed without its C engine"
    made.servers = [
        Server(s.key, s.label, s.family, reason if s.family == "fastcore-c" else None)
        for s in made.servers
    ]
    for cell in made.cells:
        if cell.server.startswith("fastcore-c"):
            cell.rounds, cell.counts, cell.failure = [], None, f"missing: {reason}"
    found = {plot.name: plot for plot in plots.plots_of(made, "echo")}
    assert found["echo-cpu"].missing == [f"fastcore C: {reason}"]
    assert svg_texts(found["echo-all"]).count("missing") == 4
    assert reason in report.render(made)


def test_servers_without_an_answer() -> None:
    made = make_result("idle", "mixed")
    for cell in made.cells:
        if cell.server == "pyasyncore-direct" and cell.workload in ("idle-1000", "mixed"):
            cell.rounds, cell.failure = [], "no answer: 3 of 9 connections"
    (idle, _) = plots.plots_of(made, "idle")
    (axes,) = idle.figure.get_axes()
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_color() for line in crosses] == [drawing.COLOURS["pyasyncore"]]
    assert [float(line.get_xdata()[0]) for line in crosses] == [1000.0]
    assert "A cross at the top" in idle.caption
    (mixed,) = plots.plots_of(made, "mixed")
    assert svg_texts(mixed).count("no answer") == 2
    assert "no answer: 3 of 9 connections" in report.render(made)


def test_a_very_long_bar_leaves_the_others_readable() -> None:
    made = make_result("churn")
    for cell in made.cells:
        if cell.server == "pyasyncore-direct":
            cell.rounds = rounds(1000.0, made.workload(cell.workload))
    (found,) = plots.plots_of(made, "churn")
    cost, rate = found.figure.get_axes()
    assert cost.get_xlim()[1] < 30
    assert rate.get_xlim()[1] > 200_000  # the best ones are never cut
    assert "1,020 >>" in svg_texts(found)
    assert ">> is a bar that is too long" in found.caption


def test_one_number_of_connections_makes_bars() -> None:
    made = make_result("echo", "idle")
    made.workloads = [w for w in made.workloads if w.key in ("echo-1024-100", "idle-1000")]
    names = [plot.name for group in ("echo", "idle") for plot in plots.plots_of(made, group)]
    assert names == ["echo-all", "idle-all"]


def test_axes_have_several_ticks(drawn: dict[str, list[drawing.Plot]]) -> None:
    """Also where the figures differ little; round numbers where they do not."""
    for plot in [plot for found in drawn.values() for plot in found]:
        for axes in [axes for axes in plot.figure.get_axes() if axes.get_yscale() == "log"]:
            low, high = axes.get_ylim()
            ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
            assert 2 <= len(ticks) <= 16, plot.name


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8714, "0.871"), (5.0, "5.00"), (99.9, "99.9"), (99.96, "100"), (31234.5, "31,234"),
     (41_000_000, "41.0M")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert drawing.show_number(value) == text


def test_pictures(tmp_path: Path) -> None:
    """A few files for a README, the same ones each time."""
    made = make_result("echo", "idle")
    written = plots.write_pictures(made, tmp_path / "a")
    assert [path.name for path in written] == [
        f"{name}.{kind}"
        for name in ("echo-all", "echo-rate", "idle-cpu")
        for kind in ("svg", "png")
    ]
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    again = plots.write_pictures(made, tmp_path / "b", formats=("svg",))
    assert [path.read_bytes() for path in again] == [p.read_bytes() for p in written[::2]]
    assert plots.write_pictures(Result(), tmp_path / "c") == []


def test_pictures_from_the_command_line(tmp_path: Path) -> None:
    result.save(make_result("idle"), tmp_path / "a.json")
    line = [sys.executable, "-W", "error", "-m", "fastcore_bench.plots"]
    for name, status, words in (("a", 0, "idle-cpu.png"), ("b", 2, "b.json: No such file")):
        done = subprocess.run(
            [*line, str(tmp_path / f"{name}.json"), str(tmp_path / "pictures")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        assert words in done.stdout + done.stderr


# ---- the page ------------------------------------------------------------------


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write(make_result(*GROUPS), path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.foreign == []
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for group in GROUPS:
        assert f"#{group}" in page.links
    references = set(re.findall(r"url\(#([^)]*)\)", text))
    assert references <= set(page.ids)
    for words in ("A <fast> one", "A note & <more>.", "uvloop <Protocol>", "8.0 GiB", "1.5 min"):
        assert words in page.text
    assert "<fast>" not in text
    assert len(text) < 800_000


def rows(page: str, *words: str) -> list[list[str]]:
    """The cells of all rows of tables that have these words, without what marks them up."""
    found = []
    for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL):
        cells = [
            " ".join(re.sub(r"<.*?>", "", cell).split())
            for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)
        ]
        if all(any(word in cell for cell in cells) for word in words):
            found.append(cells)
    return found


def test_figures_and_ratios() -> None:
    """Two rows of tables, by hand."""
    made = make_result("echo", "accept")
    made.workloads = [w for w in made.workloads if w.key in ("echo-1024-1", "accept")]
    page = report.render(made)
    (full,) = rows(page, "fastcore C, tutorial", "11,400")
    assert full == [
        "fastcore C, tutorial", "166,667", "6.12", "6.06 to 6.18", "1.20", "0.86",
        "6.00", "12.0", "18.0", "3.00", "11,400",
    ]  # fmt: skip
    (glance,) = rows(page, "accept connections/s", "111,111", "recv/send 181,818")
    assert glance[1:] == [
        "200,000",
        *("recv/send 181,818", "0.91", "1.27"),
        *("recv/send 111,111", "0.56", "0.78"),
        "uvloop &lt;Protocol&gt; 142,857",
    ]
    row = re.findall(r"<tr><td>accept <small>.*?</tr>", page, re.DOTALL)[0]
    assert row.count('class="better"') == row.count('class="worse"') == 1


def test_every_group_of_workloads_is_on_the_page() -> None:
    for plan in workloads.full_plans() + workloads.quick_plans():
        assert plan.workload.group in report.GROUPS


def test_the_worst_rows_of_each_engine() -> None:
    made = make_result("accept", "answered", "memory")
    page = report.render(made)
    assert rows(page, "times as bad") != []
    found = [row[1:] for row in rows(page, "accept connections/s", "uvloop") if len(row) == 7]
    assert found == [
        ["fastcore C, tutorial", "166,667", "0.83", "0.86", "uvloop &lt;Protocol&gt;", "142,857"],
        ["fastcore C, recv/send", "181,818", "0.91", "0.79", "uvloop &lt;Protocol&gt;", "142,857"],
        [
            *("fastcore Python, recv/send", "111,111", "0.56", "1.29"),
            *("uvloop &lt;Protocol&gt;", "142,857"),
        ],
    ]
    assert rows(page, "by threads p50 µs", "fastcore Python, recv/send")
    assert 'id="worst"' not in report.render(make_result())


def test_the_first_table_is_no_wider_than_the_page() -> None:
    """Its names may wrap, so that its last column is not beyond the edge."""
    page = report.render(make_result("echo"))
    assert [cells[-1] for cells in rows(page, "fastcore Python", "best peer")] == ["best peer"]
    (rule,) = re.findall(r"table\.glance th, table\.glance td {(.*?)}", page)
    assert "white-space: normal" in rule


def test_errors_are_shown_where_there_were_any() -> None:
    made = make_result("churn")
    assert rows(report.render(made), "errors") == []
    made.row("churn")[2].rounds[0]["errors"] = 7
    page = report.render(made)
    (headings,), (*_, row) = rows(page, "errors"), rows(page, "fastcore C, recv/send", "5.61")
    assert row[headings.index("errors")] == "7"


def test_a_kept_result_makes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert command.main(["report", str(KEPT), str(out)]) == 0
    assert str(out) in capsys.readouterr().out.replace("\n", "")
    page = Page(out.read_text(encoding="utf-8"))
    assert "2026-11-22T16:09:20+00:00" in page.text
    assert "#computing" in page.links


def test_none_idle_is_the_echo_of_as_many() -> None:
    """It is measured once, and is the first point of the lines over idle connections."""
    made = make_result("echo", "idle")
    made.workloads = [w for w in made.workloads if w.key != "idle-0"]
    made.workloads[1] = replace(made.workloads[1], size=1024, busy=10)
    made.cells = [cell for cell in made.cells if cell.workload != "idle-0"]
    plot = next(plot for plot in plots.plots_of(made, "idle") if plot.name == "idle-cpu")
    (axes,) = plot.figure.get_axes()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1k"]


def test_missing_cells_and_empty_groups() -> None:
    """Whatever an interrupted run leaves behind still makes a page."""
    made = make_result(*GROUPS)
    made.cells = [c for n, c in enumerate(made.cells) if n % 3 or c.workload == "churn"]
    for number, cell in enumerate(made.cells):
        if number % 4 == 0:
            cell.rounds = []
        elif number % 4 == 1:
            cell.rounds = [dict.fromkeys(cell.rounds[0], None)]
        elif number % 4 == 2:
            cell.rounds, cell.failure = [], "left out: no time left"
    made.workloads.append(Workload("none", "no cells", "empty", "echo"))
    made.about = {}
    page = Page(report.render(made))
    assert "left out: no time left" in page.text


@pytest.mark.parametrize("kind", ["nothing at all", "no cells", "only failures", "only one"])
def test_hardly_anything(kind: str) -> None:
    made = Result() if kind == "nothing at all" else make_result("echo", "churn")
    if kind == "no cells":
        made.cells = []
    for cell in made.cells:
        if kind == "only failures":
            cell.rounds, cell.counts, cell.failure = [], None, "did not start: <no reason>"
    if kind == "only one":
        made.cells = made.cells[:1]
        made.workloads = made.workloads[:1]
        made.servers = made.servers[:1]
    page = Page(report.render(made))
    assert ("Nothing was measured." in page.text) == (kind in ("nothing at all", "no cells"))
    if kind == "only failures":
        assert "did not start: <no reason>" in page.text


def test_counts_alone_and_zero_figures() -> None:
    made = make_result("churn", "memory")
    for cell in made.cells:
        for figures in cell.rounds:
            figures[result.CPU] = 0.0
            figures["p50_us"] = None
        cell.counts = {"syscalls_per_request": 0.19, "instructions_per_request": None}
    Page(report.render(made))
    found = plots.plots_of(made, "counts")
    assert len(found) == 2
    assert "0.190" in svg_texts(found[0])
