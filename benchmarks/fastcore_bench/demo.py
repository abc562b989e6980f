"""`make demo`: one echo server on every engine, beside the limit, in one table.

A small fixed selection over the same machinery as the full benchmarks: the tutorial's echo
server runs, unmodified, on each of fastcore's engines and on the pure-Python asyncore that people
use today; a minimal C server shows the limit.  It ends within two minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import show
from .measure import Bench, about, make_result, prepared
from .result import Workload, save
from .servers import PEER
from .workloads import Plan, fit, plan, show_size

SIZE = 1024  # bytes
BUDGET = 105.0  # seconds for everything; what is not measured by then is left out
LABELS = {
    "limit": "limit: C epoll",
    "fastcore-c-tutorial": "fastcore, C",
    "fastcore-python-tutorial": "fastcore, Python",
    "pyasyncore-tutorial": PEER,
}
CONNECTIONS = ((1, 0), (100, 0), (1000, 0), (10, 5000))
QUICK = ((1, 0), (10, 20))


def parse_connections(text: str) -> tuple[int, int]:
    """From "10" or "10+9000"; busy and idle ones."""
    busy, _, idle = text.partition("+")
    numbers = int(busy), int(idle or 0)
    if numbers[0] < 1 or numbers[1] < 0:
        raise ValueError(text)
    return numbers


def positive(text: str) -> float:
    """Seconds, within reason."""
    seconds = float(text)
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be from 0.01 to 3600")
    return seconds


def demo_plan(busy: int, idle: int, seconds: float, rounds: int) -> Plan:
    """One group of rows: `seconds` are for all rounds of a row."""
    group = "idle" if idle else "echo"
    made = plan(group, "echo", tuple(LABELS), size=SIZE, busy=busy, idle=idle)
    each = seconds / rounds
    return replace(made, rounds=rounds, seconds=each, warmup=min(0.3, each / 2))


def without_size(workload: Workload) -> Workload:
    """The workload under a shorter label: the table's title has the size."""
    return replace(workload, label=workload.label.removeprefix(f"echo {show_size(SIZE)}, "))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench demo`."""
    parser.add_argument(
        "--seconds", type=positive, default=2.0, help="time to measure each row (default 2)"
    )
    parser.add_argument("--quick", action="store_true", help="few connections, one round each")
    parser.add_argument(
        "--connections",
        type=parse_connections,
        action="append",
        metavar="BUSY[+IDLE]",
        help="measure with these instead, such as 10+9000; may be given several times",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print the table, and say what was not possible."""
    begin = time.monotonic()
    connections: Sequence[tuple[int, int]] = options.connections or CONNECTIONS
    if options.quick and not options.connections:
        connections = QUICK
    plans = [
        # Opening thousands takes the peer long: one round.
        demo_plan(busy, idle, options.seconds, 1 if idle or options.quick else 3)
        for busy, idle in connections
    ]
    with prepared() as (kit, limit, notes):
        kit.compile()
        plans, more = fit(plans, limit)
        plans = [replace(p, workload=without_size(p.workload)) for p in plans]
        contenders = [
            replace(kit.contenders[key], server=replace(kit.contenders[key].server, label=label))
            for key, label in LABELS.items()
        ]
        result = make_result(plans, contenders)
        result.about = about(kit, limit, vars(options))
        # Asking for longer rows is asking for a longer demo.
        deadline = begin + BUDGET * max(1.0, options.seconds / 2)

        def table(*_: object) -> Table:
            title = f"Echo of {SIZE} bytes over loopback, by number of connections"
            return show.make_table(result, result.workloads, title, spread=False)

        Bench(result, plans, kit, deadline).run(console, table)
    console.print(table())
    result.notes = [*notes, *more, *show.cell_notes(result)]
    show.print_notes(console, [*show.LEGEND, *result.notes])
    console.print(f"{time.monotonic() - begin:.0f} s in all.")
    if options.json:
        save(result, options.json)
    return 0 if any(cell.rounds for cell in result.cells) else 1
