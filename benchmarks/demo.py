"""Compares echo servers under load and prints one table.

The tutorial's echo server runs, unmodified, on each of fastcore's engines and
on the pure-Python asyncore that people use today; a minimal C server shows the
limit.  This module decides what is measured and shows it; children.py starts
and ends the processes, load.c (or load.py) makes the load.  README.md beside
this file explains the columns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from children import (
    ECHO_SERVER,
    HERE,
    Cores,
    Failure,
    Server,
    compile_c,
    drive,
    known_servers,
    running,
)
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

SIZE = 1024
BUDGET = 105.0  # seconds for everything; what is not measured by then is left out
SPARE_DESCRIPTORS = 64
FIGURES = ("requests_per_second", "cpu_us_per_request", "p50_us", "p99_us")


@dataclass(frozen=True)
class Workload:
    """One group of rows."""

    busy: int
    idle: int = 0
    rounds: int = 3

    @classmethod
    def parse(cls, text: str) -> Workload:
        """From "10" or "10+9000"."""
        busy, _, idle = text.partition("+")
        workload = cls(int(busy), int(idle or 0), rounds=1 if idle else 3)
        if workload.busy < 1 or workload.idle < 0:
            raise ValueError(text)
        return workload

    @property
    def label(self) -> str:
        """How the table calls it."""
        return f"{self.busy:,} busy" + (f" + {self.idle:,} idle" if self.idle else "")


@dataclass
class Cell:
    """What is known of one server under one workload."""

    workload: Workload
    server: Server
    rounds: list[dict[str, float | None]] = field(default_factory=list)
    failure: str | None = None

    def figure(self, name: str) -> float | None:
        """The median over the rounds."""
        values = [value for r in self.rounds if (value := r[name]) is not None]
        return statistics.median(values) if values else None

    @property
    def errors(self) -> int:
        """Wrong or missing answers in all rounds."""
        return int(sum(r["errors"] or 0 for r in self.rounds))


WORKLOADS = (Workload(1), Workload(100), Workload(1000), Workload(10, 5000, rounds=1))
QUICK_WORKLOADS = (Workload(1, rounds=1), Workload(10, 20, rounds=1))


# ---- the machine ----------------------------------------------------------


def raise_descriptor_limit() -> int:
    """Raise our soft limit as far as we may; the limit, which children inherit."""
    try:
        import resource
    except ImportError:  # not Unix
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 65536  # also where the hard limit is "infinite" but the kernel's is not
    for wanted in (enough, 10240):
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < target:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
                return target
    return enough if soft == resource.RLIM_INFINITY else soft


def fit(workloads: tuple[Workload, ...], limit: int) -> tuple[list[Workload], list[str]]:
    """Scale workloads down to the descriptor limit, and say so."""
    room = limit - SPARE_DESCRIPTORS
    fitted, notes = [], []
    for workload in workloads:
        busy = max(min(workload.busy, room), 1)
        small = replace(workload, busy=busy, idle=max(min(workload.idle, room - busy), 0))
        if small != workload:
            notes.append(
                f"The limit of {limit} open files (ulimit -n) is too low for"
                f" {workload.label}: scaled down to {small.label}."
            )
        if small not in fitted:
            fitted.append(small)
    return fitted, notes


def prepare(directory: Path) -> tuple[tuple[str, ...], Path | None, list[str]]:
    """Build the C programs: the load generator, the limit's server, and notes."""
    notes = []
    generator: tuple[str, ...]
    try:
        generator = (str(compile_c("load.c", directory)),)
    except Failure as failure:
        generator = (sys.executable, str(HERE / "load.py"))
        notes.append(
            f"Load generator: Python ({failure}). It is slower than the servers:"
            " only the CPU time per request compares them."
        )
    limit = None
    if not sys.platform.startswith("linux"):
        notes.append("No row for the limit: the C server uses epoll, which is Linux only.")
    else:
        try:
            limit = compile_c("echo_epoll.c", directory)
        except Failure as failure:
            notes.append(f"No row for the limit: {failure}.")
    return generator, limit, notes


# ---- measuring ------------------------------------------------------------


@dataclass
class Bench:
    """All cells, and how to fill them."""

    cells: list[Cell]
    generator: tuple[str, ...]
    cores: Cores
    directory: Path
    seconds: float
    deadline: float

    def steps(self) -> Iterator[Cell]:
        """The cells in the order of measuring: servers in turn within each round."""
        for workload in dict.fromkeys(cell.workload for cell in self.cells):
            group = [cell for cell in self.cells if cell.workload == workload]
            for _ in range(workload.rounds):
                yield from group

    def step(self, cell: Cell) -> None:
        """Measure one server once, on a process of its own."""
        workload = cell.workload
        seconds = self.seconds / workload.rounds
        warmup = min(0.3, seconds / 2)
        # The peer accepts one connection a tick, each tick dearer than the last.
        connect = 5.0 + 0.008 * (workload.idle + workload.busy)
        left = self.deadline - time.monotonic()
        if cell.failure is not None:
            return
        if left < seconds + warmup + 2:
            cell.failure = "left out: no time left"
            return
        arguments = ["--busy", workload.busy, "--idle", workload.idle, "--size", SIZE]
        arguments += ["--seconds", seconds, "--warmup", warmup]
        arguments += ["--connect-timeout", min(connect, left - seconds - warmup - 1)]
        timeout = min(connect + seconds + warmup + 5, left)
        try:
            with running(cell.server, self.cores, self.directory) as (pid, port):
                texts = [str(argument) for argument in [*arguments, "--pid", pid]]
                cell.rounds.append(drive(self.generator, port, texts, self.cores, timeout))
        except Failure as failure:
            cell.failure = str(failure)
            if cell.failure.startswith("did not start"):
                for other in self.cells:
                    if other.server == cell.server:
                        other.failure = cell.failure

    def run(self, console: Console) -> None:
        """Measure everything, and say meanwhile what is going on."""
        steps = list(self.steps())
        with progress(console, len(steps)) as report:
            for cell in steps:
                report(f"{cell.workload.label}: {cell.server.label}")
                self.step(cell)


@contextlib.contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """A function that announces each step: a bar on a terminal, else plain lines."""
    if not console.is_terminal:
        done = 0

        def say(text: str) -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{total}] {text}", flush=True)

        yield say
        return
    columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    # Drawn rarely: the bar must not take part in what it announces.
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, refresh_per_second=4
    ) as bar:
        task = bar.add_task("", total=total, completed=-1)
        yield lambda text: bar.update(task, advance=1, description=text)
        bar.update(task, completed=total, description="done")


# ---- showing --------------------------------------------------------------


def ratio(cell: Cell, other: Cell | None) -> str:
    """CPU time per request, as a multiple of another server's."""
    own = cell.figure("cpu_us_per_request")
    theirs = other.figure("cpu_us_per_request") if other else None
    return f"{own / theirs:.2f}" if own and theirs else "-"


def show_figure(value: float | None, places: int) -> str:
    """A number for the table."""
    return "-" if value is None else f"{value:,.{places}f}"


def row_word(cell: Cell) -> str:
    """What a row without figures says; the notes below the table say why."""
    failure = cell.failure or ""
    if failure.startswith("did not start"):
        return "missing"
    return "left out" if failure.startswith("left out") else "no answer"


def make_table(cells: list[Cell]) -> Table:
    """One table: a group of rows for each workload."""
    title = f"Echo of {SIZE} bytes over loopback, by number of connections"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("engine", no_wrap=True)
    for heading in ("requests/s", "CPU us\n/req.", "p50\nus", "p99\nus", "CPU\n/limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("CPU\n/peer", justify="right", no_wrap=True)
    for workload in dict.fromkeys(cell.workload for cell in cells):
        group = {cell.server.key: cell for cell in cells if cell.workload == workload}
        table.add_row(f"[bold]{workload.label}[/bold]")
        for cell in group.values():
            values = [row_word(cell)] + ["-"] * 5
            if cell.rounds:
                figures = [cell.figure(name) for name in FIGURES]
                values = [show_figure(v, p) for v, p in zip(figures, (0, 2, 0, 0), strict=True)]
                values += [ratio(cell, group.get("limit")), ratio(cell, group.get("peer"))]
            table.add_row("  " + cell.server.label, *values)
        table.add_section()
    return table


def cell_notes(cells: list[Cell]) -> list[str]:
    """What the rows have no room for; the same reason is given once."""
    notes = {}
    for cell in cells:
        where = cell.server.label
        if cell.failure and not cell.failure.startswith("did not start"):
            where += f", {cell.workload.label}"
        if cell.failure:
            notes[f"{where}: {cell.failure}."] = None
        if cell.errors:
            notes[f"{where}, {cell.workload.label}: {cell.errors} errors."] = None
    return list(notes)


def write_json(path: Path, cells: list[Cell], notes: list[str], generator: str) -> None:
    """The same figures for programs, with each single round."""
    results = [
        {
            "engine": cell.server.key,
            "busy": cell.workload.busy,
            "idle": cell.workload.idle,
            **{name: cell.figure(name) for name in FIGURES},
            "errors": cell.errors,
            "failure": cell.failure,
            "rounds": cell.rounds,
        }
        for cell in cells
    ]
    about = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "size": SIZE,
        "load_generator": generator,
        "servers": {cell.server.key: asdict(cell.server)["label"] for cell in cells},
    }
    report = {"about": about, "notes": notes, "results": results}
    path.write_text(json.dumps(report, indent=2) + "\n")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="time to measure each row (default 2)"
    )
    parser.add_argument("--quick", action="store_true", help="few connections, one round each")
    parser.add_argument(
        "--connections",
        type=Workload.parse,
        action="append",
        metavar="BUSY[+IDLE]",
        help="measure with these instead, such as 10+9000; may be given several times",
    )
    parser.add_argument(
        "--program",
        type=Path,
        default=ECHO_SERVER,
        help="the echo server to run on each engine (default examples/echo_server.py)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    if not 0.01 <= options.seconds <= 3600:
        parser.error("--seconds must be from 0.01 to 3600")
    return options


def main() -> int:
    """Measure, print the table, and say what was not possible."""
    options = read_arguments()
    begin = time.monotonic()
    console = Console(highlight=False)
    workloads = QUICK_WORKLOADS if options.quick else WORKLOADS
    workloads = tuple(options.connections or workloads)
    fitted, notes = fit(workloads, raise_descriptor_limit())
    cores = Cores.choose()
    if cores.server is None:
        notes.append("Server and load are not pinned to cores of their own here.")
    with tempfile.TemporaryDirectory(prefix="fastcore-demo-") as name:
        generator, limit, more_notes = prepare(Path(name))
        servers = known_servers(limit, options.program)
        cells = [Cell(w, server) for w in fitted for server in servers]
        # Asking for longer rows is asking for a longer demo.
        budget = BUDGET * max(1.0, options.seconds / 2)
        empty = Path(name) / "empty"
        empty.mkdir()
        bench = Bench(cells, generator, cores, empty, options.seconds, begin + budget)
        bench.run(console)
    notes += more_notes + cell_notes(cells)
    console.print(make_table(cells))
    for note in notes:
        console.print(f"* {note}", markup=False)
    kind = "load.py" if len(generator) > 1 else "load.c"
    console.print(f"Load by {kind}; {time.monotonic() - begin:.0f} s in all.")
    if options.json:
        write_json(options.json, cells, notes, kind)
    return 0 if any(cell.rounds for cell in cells) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
