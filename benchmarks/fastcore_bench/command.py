"""The command line of the benchmarks: `python -m fastcore bench`.

It reads options, chooses what is to be measured, and hands over to the modules that measure,
compare and report.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import counts, demo, show, tools, workloads
from .children import Failure
from .measure import Bench, Kit, about, make_result, prepared
from .result import ENGINES, Result, ResultError, Workload, load, save
from .servers import Contender
from .workloads import ROUNDS, SECONDS, Plan, fit, full_plans, quick_plans

PROG = "python -m fastcore bench"
COMMANDS = ("run", "compare", "report", "demo")
FULL_BUDGET, QUICK_BUDGET = 38.75 * 60.0, 108.0  # seconds for everything
COUNTING = 3 * 60.0  # seconds of them for counting
INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended

DESCRIPTION = """\
Measures fastcore beside everything one could use instead, in turn within one run.
Without a command it is `run`: see `run --help` for its options.
"""
RUN_DESCRIPTION = """\
Measures every server under every workload and writes a JSON file with all raw rounds. Takes up to
40 minutes, with --quick up to 2; Ctrl-C ends it early and keeps what there is.
"""


COMPARE_DESCRIPTION = """\
Compares what each workload is about (CPU time per request; for some the rate, or memory) for every
server that both files have. Each round counts as a multiple of the limit's round of the same
number, so that a machine that is slower today slows down both; where there is no such round, the
plain figure counts. A cell got slower where Welch's t-test says so with 99 % confidence, and by at
least 3 %.
"""


class Usage(Exception):
    """The command line makes no sense; the text says why."""


# ---- options --------------------------------------------------------------


def rounds(text: str) -> int:
    """How many rounds, within reason."""
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be from 1 to 1000")
    return number


def named_python(text: str) -> tuple[str, str]:
    """From "old=/path/to/python": the name and the interpreter."""
    name, _, python = text.partition("=")
    if not re.fullmatch(r"[\w.-]+", name) or not python:
        raise argparse.ArgumentTypeError("must be NAME=PYTHON, such as old=/path/to/bin/python")
    # Servers run in another folder.
    return name, os.path.abspath(shutil.which(python) or python)


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog=PROG, description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    run = commands.add_parser("run", help="measure (the default)", description=RUN_DESCRIPTION)
    add_run_arguments(run)
    comparing = commands.add_parser(
        "compare",
        help="say what got slower between two results",
        description=COMPARE_DESCRIPTION,
        epilog="The exit status is 1 where something got slower, or failed that did not before.",
    )
    comparing.add_argument("old", type=Path, metavar="OLD")
    comparing.add_argument("new", type=Path, metavar="NEW")
    comparing.add_argument(
        "--any-machine", action="store_true", help="compare results of different machines, too"
    )
    reporting = commands.add_parser("report", help="make an HTML report of a result")
    reporting.add_argument("result", type=Path, metavar="RESULT")
    reporting.add_argument(
        "out", type=Path, nargs="?", metavar="OUT.html", help="default: beside the result"
    )
    showing = commands.add_parser(
        "demo", help="a small table within two minutes", description=demo.__doc__.splitlines()[0]
    )
    demo.add_arguments(showing)
    return parser


def add_run_arguments(run: argparse.ArgumentParser) -> None:
    """The options of `bench run`."""
    run.add_argument("--quick", action="store_true", help="a selection, within 2 minutes")
    for option, what in (("--workload", "workloads or groups"), ("--server", "servers")):
        run.add_argument(
            option,
            action="append",
            default=[],
            metavar="GLOB",
            help=f"only these {what}, by the keys that --list shows, such as 'echo-1k-*';"
            " may be given several times",
        )
    run.add_argument(
        "--rounds",
        type=rounds,
        metavar="N",
        help=f"of each server under each workload (default {ROUNDS}, with --quick 3)",
    )
    run.add_argument(
        "--seconds",
        type=demo.positive,
        metavar="S",
        help=f"to measure in each round, more where a workload needs it (default {SECONDS})",
    )
    run.add_argument(
        "--output", type=Path, default=Path("bench.json"), metavar="FILE", help="bench.json"
    )
    run.add_argument("--report", type=Path, metavar="FILE.html", help="make the report as well")
    run.add_argument(
        "--no-counts",
        action="store_true",
        help="do not count system calls and instructions; --quick never does",
    )
    run.add_argument(
        "--beside",
        type=named_python,
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="measure the fastcore of another interpreter as well, under keys such as"
        " fastcore-c-direct@NAME; may be given several times",
    )
    run.add_argument("--list", action="store_true", help="show servers and workloads, and end")


# ---- choosing -------------------------------------------------------------


def matches(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether any name fits any pattern; all do where there are none."""
    return not patterns or any(fnmatchcase(n, p) for n in names for p in patterns)


def check_patterns(option: str, patterns: Sequence[str], names: Iterable[str]) -> None:
    """Each pattern must mean something: a misspelt one is no empty selection."""
    names = list(names)
    for pattern in patterns:
        if not matches(names, [pattern]):
            raise Usage(f"{option} {pattern}: there is none here; --list shows what there is")


def choose_plans(options: argparse.Namespace, limit: int) -> tuple[list[Plan], list[str]]:
    """What is to be measured, by the options and what fits; notes on what does not."""
    plans, notes = fit(quick_plans() if options.quick else full_plans(), limit)
    names = [name for p in plans for name in (p.workload.key, p.workload.group)]
    check_patterns("--workload", options.workload, names)
    plans = [p for p in plans if matches((p.workload.key, p.workload.group), options.workload)]
    if options.rounds:
        plans = [replace(p, rounds=options.rounds) for p in plans]
    if options.seconds:
        factor = options.seconds / SECONDS
        plans = [replace(p, seconds=p.seconds * factor) for p in plans]
    return plans, notes


def choose(
    options: argparse.Namespace, kit: Kit, limit: int
) -> tuple[list[Plan], list[Contender], list[str]]:
    """Plans and servers; Usage where nothing is left of either."""
    plans, notes = choose_plans(options, limit)
    check_patterns("--server", options.server, kit.contenders)
    contenders = [c for c in kit.contenders.values() if matches((c.key,), options.server)]
    reasons = {
        p.workload.key: tools.why_not(p.workload.protocol)
        for p in plans
        if p.workload.group == "tools"
    }
    plans = [p for p in plans if reasons.get(p.workload.key) is None]
    notes += [f"Load by tools is left out: {reason}." for reason in {*reasons.values()} if reason]
    if not make_result(plans, contenders).cells:
        raise Usage(" ".join([*notes, "nothing fits these options; --list shows what there is"]))
    return plans, contenders, notes


def budget(options: argparse.Namespace) -> float:
    """Seconds for everything; asking for more of each is asking for a longer run."""
    more = (options.rounds or 0) / ROUNDS * max(1.0, (options.seconds or 0) / SECONDS)
    return (QUICK_BUDGET if options.quick else FULL_BUDGET) * max(1.0, more)


# ---- the commands ---------------------------------------------------------


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, show and write."""
    begin = time.monotonic()
    for path in filter(None, (options.output, options.report)):  # rather now than at the end
        if not path.parent.is_dir():
            raise Usage(f"{path}: there is no such folder")
    if options.report:
        needing("report")
    with prepared(dict(options.beside)) as (kit, limit, notes):
        plans, contenders, more = choose(options, kit, limit)
        result = make_result(plans, contenders)
        if options.list:
            show_list(console, result, plans)
            return 0
        notes += kit.compile(result.servers)
        result.about = about(kit, limit, vars(options))
        notes += more
        if not options.workload:
            notes += workloads.QUICK_NOTES if options.quick else workloads.FULL_NOTES

        def keep(plan: Plan | None = None) -> None:
            if plan is not None:
                console.print(table_of(result, plan.workload))
            result.about["duration_s"] = round(time.monotonic() - begin, 1)
            result.notes = [*notes, *show.cell_notes(result)]
            save(result, options.output)

        status = 0
        end = begin + budget(options)
        counting = not (options.no_counts or options.quick)
        try:
            bench = Bench(result, plans, kit, end - COUNTING * counting)
            bench.run(console, lambda workload: table_of(result, workload), keep)
            if counting:
                notes += add_counts(result, kit, end, console)
        except KeyboardInterrupt:
            notes.append("Interrupted: what was not measured by then is missing.")
            status = INTERRUPTED
        keep()
    legend = [*show.LEGEND, show.SPREAD_LEGEND]
    if any(result.worst_rows(family) for family in ENGINES):
        console.print(show.make_worst_table(result))
        legend.append(show.WORST_LEGEND)
    show.print_notes(console, [*legend, *result.notes])
    console.print(f"{result.about['duration_s']:.0f} s in all; written to {options.output}.")
    if options.report:
        return max(status, write_report(result, options.report, console))
    if not any(cell.rounds for cell in result.cells):
        return status or 1
    return status


def table_of(result: Result, workload: Workload) -> Table:
    """The table of one workload."""
    return show.make_table(result, [workload], workload.label)


def add_counts(result: Result, kit: Kit, deadline: float, console: Console) -> list[str]:
    """Count system calls and instructions for some of the cells, and show them; notes."""
    console.print("Counting system calls and instructions.")
    with console.status("") as status:
        notes = counts.fill(result, kit, deadline, lambda text: status.update(Text(text)))
    for workload in result.workloads:
        if any(cell.counts for cell in result.row(workload.key)):
            console.print(show.make_counts_table(result, workload))
    return notes


def show_list(console: Console, result: Result, plans: Sequence[Plan]) -> None:
    """All servers and workloads by key, and what is missing."""
    table = Table(title="Servers", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("key", "server", "missing"):
        table.add_column(heading, no_wrap=heading == "key")
    for server in result.servers:
        table.add_row(server.key, server.label, server.missing or "")
    console.print(table)
    table = Table(title="Workloads", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("key", "group", "workload", "servers", "seconds"):
        table.add_column(heading, no_wrap=heading == "key")
    for plan in plans:
        w, count = plan.workload, len(result.row(plan.workload.key))
        seconds = f"{plan.estimate * plan.rounds * count:.0f}"
        table.add_row(w.key, w.group, w.label, str(count), seconds)
    console.print(table)


def needing(name: str) -> ModuleType:
    """The module `report` or `compare`; nothing else needs their libraries."""
    try:
        return import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        raise Usage(f"`bench {name}` needs {error.name}: pip install {error.name}") from error


def write_report(result: Result, path: Path, console: Console) -> int:
    """Write the HTML report."""
    needing("report").write(result, path)
    console.print(f"Report: {path}")
    return 0


def run_compare(options: argparse.Namespace, console: Console) -> int:
    """Say what got slower."""
    old, new = load(options.old), load(options.new)
    compare = needing("compare")
    different = compare.other_machine(old, new)
    if different and not options.any_machine:
        raise Usage(
            "these are results of different machines, which says nothing about the program ("
            + "; ".join(different)
            + "); --any-machine compares them all the same"
        )
    return 1 if compare.compare(old, new, console) else 0


def run_report(options: argparse.Namespace, console: Console) -> int:
    """Make the report of a kept result."""
    out = options.out or options.result.with_suffix(".html")
    return write_report(load(options.result), out, console)


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit status."""
    arguments = list(argv)
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments.insert(0, "run")
    parser = make_parser()
    options = parser.parse_args(arguments)
    console = show.make_console()
    # Whatever ends this program ends its children, too, and keeps what there is.
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    does = {"run": run, "compare": run_compare, "report": run_report, "demo": demo.run}
    try:
        return does[options.command](options, console)
    except (Usage, ResultError, Failure) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
