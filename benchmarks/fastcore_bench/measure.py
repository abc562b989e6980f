"""Measures: rounds in turn, each on a fresh process, within a time budget.

A round visits every server of a workload once, so that what the machine does
meanwhile meets all of them alike.  It fills the cells of a Result; what is
measured, and with what, others decide.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from . import machine, show, tools
from .children import Cores, Failure, compile_c, run_json, running
from .result import CPU, MEMORY, RATE, THREAD_SHARE, Cell, Result, Round, Server
from .servers import Contender, known_servers
from .workloads import IN_PROCESS, Plan

TOLERATED = 0.01  # share of connections that may fail before the figures mean nothing
PATIENCE = 30.0  # seconds beyond what a measurement should take
# Protocols of servers whose load is that of another one.
LOADS = {"answered": "echo", "relay": "echo"}
MARGIN = 1.0  # seconds kept free before the deadline


@dataclass(frozen=True)
class Kit:
    """What measuring takes: servers, the load generator, cores to run them on, a folder to be in.

    The folder is empty: the installed package is what gets measured, not a source tree that
    happens to be the current one.
    """

    fastcores: Mapping[str, machine.Installed]
    contenders: dict[str, Contender]
    generator: Path
    cores: Cores
    folder: Path

    def compile(self, servers: Iterable[Server] = ()) -> list[str]:
        """Build the C programs that these servers need; Failure where that cannot be done.

        Notes where one can do without.
        """
        folder = self.generator.parent
        compile_c("load.c", folder)
        if sys.platform.startswith("linux"):
            compile_c("limit.c", folder)
        if not any(s.family == "floor" and s.missing is None for s in servers):
            return []
        try:
            include = sysconfig.get_path("include")
            compile_c("floor.c", folder, "-shared", "-fPIC", f"-I{include}", suffix=".so")
        except Failure as failure:
            return [f"The floor was not compiled: {failure}"]
        return []

    def upstream(self) -> contextlib.AbstractContextManager[tuple[int, int]]:
        """Start the server that is behind a relay: the same C program for all of them.

        It shares the core of the load: the relay has one of its own, as all servers have.
        """
        if not sys.platform.startswith("linux"):
            raise Failure("behind the relay is the C server, which uses epoll: Linux only")
        command = [str(self.generator.with_name("limit"))]
        return running(command, Cores(self.cores.load, None), self.folder)


@contextlib.contextmanager
def prepared(beside: Mapping[str, str] | None = None) -> Iterator[tuple[Kit, int, list[str]]]:
    """A kit in a temporary folder, the limit of open files (raised), and notes.

    `beside` are other Pythons, by name, whose fastcore is measured as well.
    """
    limit = machine.raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="fastcore-bench-") as name:
        cores, folder = Cores.choose(), Path(name)
        notes = []
        if cores.server is None:
            notes.append("Server and load are not pinned to cores of their own here.")
        empty = folder / "empty"
        empty.mkdir()
        fastcores = {"": machine.installed(sys.executable, empty)}
        for word, python in (beside or {}).items():
            fastcores[f"@{word}"] = machine.installed(python, empty)
        contenders = {c.key: c for c in known_servers(folder / "limit", fastcores)}
        yield Kit(fastcores, contenders, folder / "load", cores, empty), limit, notes


def about(kit: Kit, limit: int, options: dict[str, object]) -> dict[str, object]:
    """The head of a result: when, where and with what; `duration_s` is for the end."""
    now = datetime.now(timezone.utc)
    return {
        "date": now.date().isoformat(),
        "started": now.isoformat(timespec="seconds"),
        "duration_s": None,
        "quick": bool(options.get("quick")),
        "machine": machine.describe(limit, kit.cores),
        "versions": machine.versions(kit.fastcores),
        "options": {
            name: value if isinstance(value, (int, float, bool, list)) else str(value)
            for name, value in options.items()
            if value is not None
        },
    }


def make_result(plans: Iterable[Plan], contenders: Iterable[Contender]) -> Result:
    """A result with an empty cell for each plan and each server that takes part in it."""
    plans, contenders = list(plans), list(contenders)
    result = Result()
    for plan in plans:
        for contender in contenders:
            if not plan.wants(contender.key) or not contender.speaks(plan.workload):
                continue
            reason, failure = contender.server.missing, None
            if reason is not None:
                failure = f"{show.MISSING}: {reason}"
            elif plan.connections > contender.most:
                failure = f"{show.LEFT_OUT}: each of its connections is a process or a thread"
            result.cells.append(Cell(contender.key, plan.workload.key, failure=failure))
    servers = {cell.server for cell in result.cells}
    workloads = {cell.workload for cell in result.cells}
    result.servers = [c.server for c in contenders if c.key in servers]
    result.workloads = [plan.workload for plan in plans if plan.workload.key in workloads]
    return result


@dataclass
class Bench:
    """One run: fills the cells of `result` until `deadline` (on time.monotonic())."""

    result: Result
    plans: list[Plan]
    kit: Kit
    deadline: float

    def run(
        self,
        console: Console,
        screen: show.TableOf,
        finished: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        """Measure everything, and say meanwhile what is going on.

        `screen` makes the table to show meanwhile, `finished` is called after each plan.
        """
        groups = [(plan, self.result.row(plan.workload.key)) for plan in self.plans]
        total = sum(plan.rounds * len(cells) for plan, cells in groups)
        begin, estimated = time.monotonic(), 0.0
        with show.progress(console, total, screen) as announce:
            for plan, cells in groups:
                estimate = plan.estimate * plan.rounds * sum(not cell.failure for cell in cells)
                # How fast this machine is at it, once that can be told.
                pace = (time.monotonic() - begin) / estimated if estimated > 20 else 1.0
                if estimate * pace > self.left() - MARGIN:
                    self.leave_out(cells)
                else:
                    estimated += estimate
                for cell, number in in_turn(cells, plan.rounds):
                    label = self.result.server(cell.server).label
                    announce(plan.workload, f"{plan.workload.label}: {label}")
                    self.step(plan, cell, number)
                finished(plan)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def leave_out(self, cells: list[Cell]) -> None:
        """A few rounds say little: all of a workload is measured, or nothing."""
        for cell in cells:
            cell.failure = cell.failure or f"{show.LEFT_OUT}: no time left"

    def step(self, plan: Plan, cell: Cell, number: int) -> None:
        """Measure one server once, on a process of its own."""
        if cell.failure is not None:
            return
        if self.left() < plan.estimate + MARGIN:
            cell.failure = f"{show.LEFT_OUT}: no time left after {number} of {plan.rounds} rounds"
            return
        contender = self.kit.contenders[cell.server]
        try:
            figures = self.measure(plan, contender)
            check(figures, plan)
        except Failure as failure:
            cell.failure = str(failure)
        else:
            cell.rounds.append({"round": number, **complete(figures, plan, contender)})

    def measure(self, plan: Plan, contender: Contender) -> Round:
        """The figures of one round, as the load generator gives them."""
        workload = plan.workload
        command = contender.command(workload)
        cores, folder = self.kit.cores, self.kit.folder
        timeout = min(plan.seconds + plan.warmup + PATIENCE, self.left())
        if workload.protocol in IN_PROCESS:
            return run_json(command, cores.server, folder, timeout)
        if workload.group == "tools":
            runner = contender.runner
            return tools.measure(runner, workload, cores, folder, plan.seconds, timeout)
        spare = self.left() - plan.seconds - plan.warmup - MARGIN
        connect = max(min(connect_timeout(plan), spare), 0.1)
        with contextlib.ExitStack() as servers:
            if workload.protocol == "relay":
                _, behind = servers.enter_context(self.kit.upstream())
                command += ["--upstream", str(behind)]
            pid, port = servers.enter_context(running(command, cores, folder))
            load = [str(self.kit.generator), "127.0.0.1", str(port), *load_arguments(plan)]
            load += ["--connect-timeout", f"{connect:.3f}", "--pid", str(pid)]
            return run_json(load, cores.load, folder, min(timeout + connect, self.left()))


def in_turn(cells: list[Cell], rounds: int) -> Iterator[tuple[Cell, int]]:
    """Each cell once in each round."""
    for number in range(rounds):
        for cell in cells:
            yield cell, number


def connect_timeout(plan: Plan) -> float:
    """Seconds for opening all connections; with asyncore each one is dearer than the last.

    A server that takes long must not take the time of the others: 100 s in all its rounds.
    """
    return min(5.0 + 0.008 * plan.connections, 100.0 / plan.rounds)


def load_arguments(plan: Plan) -> list[str]:
    """The load generator's options."""
    w = plan.workload
    options: dict[str, object] = {
        "--protocol": LOADS.get(w.protocol, w.protocol),
        "--busy": w.busy,
        "--idle": w.idle,
        "--size": w.size,
        "--in-flight": w.in_flight,
        "--seconds": plan.seconds,
        "--warmup": plan.warmup,
        "--timeout": PATIENCE,  # of what is measured by count: accept and transfers
    }
    if w.requests is not None:
        options["--requests"] = w.requests
    return [str(text) for pair in options.items() for text in pair]


def check(figures: Round, plan: Plan) -> None:
    """Figures in spite of many errors are those of the few connections that are left."""
    connections = figures["busy"] + figures["idle"]
    if plan.workload.protocol in ("accept", "churn"):
        connections = max(connections, figures["requests"] + figures["errors"])
    if figures["errors"] > connections * TOLERATED:
        raise Failure(f"{figures['errors']} of {connections:,} connections failed")


def complete(figures: Round, plan: Plan, contender: Contender) -> Round:
    """The figures with those added that follow from them and from what the server is."""
    w = plan.workload
    process = figures.get("process_cpu_us_per_request")
    main = figures.get(CPU)
    more: Round = {}
    if contender.whole_process or w.protocol == "answered":  # whose threads do the work
        more[CPU] = None if contender.forks else process
    before, after = figures.get("rss_before"), figures.get("rss_after")
    connections = figures["idle"] + figures["busy"]
    if before is not None and after is not None and connections:
        more[MEMORY] = (after - before) / connections
    if w.busy_thread and process is not None and main is not None:
        # The share of a core that the computing thread has had.
        more[THREAD_SHARE] = (process - main) * figures[RATE] / 1e6
    return {**figures, **more}
