"""Counts system calls (strace) and instructions (callgrind) per request.

A server runs twice under the tool, with few requests and with many; the difference is what
requests cost, and start-up and end cancel out.  There is one connection only: with several, how
many events come together would depend on timing.  PYTHONHASHSEED is 0, so that instructions
repeat.  It must not know how CPU time is measured.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from .children import Cores, Failure, last_line, run_json, running
from .measure import Kit, load_arguments
from .result import Cell, Result, Workload
from .servers import Contender
from .workloads import Plan

FEW = 200  # requests of the first run
TIMEOUT = 60.0  # seconds for a run; a server under callgrind takes ten to start
NO_TIME = "no time left"


@dataclass(frozen=True)
class Tool:
    """A program that runs another one and writes what it counted to a file."""

    figure: str  # in Cell.counts
    what: str
    line: tuple[str, ...]  # its command line; the file's name follows the last word at once
    read: Callable[[str], int]
    many: int  # requests of the second run
    debian: str  # the package that has it

    @property
    def name(self) -> str:
        """The program."""
        return self.line[0]

    def command(self, file: Path) -> list[str]:
        """What to write before a server's command."""
        return [*self.line[:-1], self.line[-1] + str(file)]


def read_strace(text: str) -> int:
    """System calls in a summary of `strace -c`: the sum of the column of calls."""
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(?!total)\w+$", text, re.MULTILINE)
    if not rows:
        raise Failure(f"strace wrote no summary: {last_line(text)}")
    return sum(map(int, rows))


def read_callgrind(text: str) -> int:
    """Instructions in a file of callgrind."""
    match = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if match is None:
        raise Failure("callgrind wrote no totals")
    return int(match[1])


STRACE = Tool(
    "syscalls_per_request",
    "system calls",
    ("strace", "-c", "-f", "-o"),
    read_strace,
    FEW + 5000,
    "strace",
)
CALLGRIND = Tool(
    "instructions_per_request",
    "instructions",
    ("valgrind", "--tool=callgrind", "--callgrind-out-file="),
    read_callgrind,
    FEW + 1000,
    "valgrind",
)


def why_not(tool: Tool, folder: Path) -> str | None:
    """Why a tool cannot be used here, found out by using it; None where it can."""
    if shutil.which(tool.name) is None:
        return f"{tool.name} is not installed (Debian: apt install {tool.debian})"
    file = folder / f"{tool.figure}-probe"
    try:
        line = [*tool.command(file), "true"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT, cwd=folder)
        if done.returncode:
            return f"the system refused {tool.name}: {last_line(done.stderr)}"
        tool.read(file.read_text(encoding="utf-8"))
    except (OSError, subprocess.TimeoutExpired, Failure) as error:
        return f"{tool.name} does not work here: {error}"
    finally:
        file.unlink(missing_ok=True)
    return None


# ---- one server ------------------------------------------------------------------


def count(tool: Tool, contender: Contender, workload: Workload, kit: Kit) -> float:
    """What one request costs a server, counted by a tool."""
    totals = []
    free = Cores(None, None)  # a count does not depend on where it is made
    with tempfile.TemporaryDirectory(prefix="fastcore-counts-") as name:
        file = Path(name) / "counted"
        for requests in (FEW, tool.many):
            one = replace(workload, busy=1, requests=requests)
            load = load_arguments(Plan(one, (), warmup=0.0))
            line = ["env", "PYTHONHASHSEED=0", *tool.command(file), *contender.command(workload)]
            # Only a server that ends by itself lets the tool write what it counted.
            with running(line, free, kit.folder, TIMEOUT, kill=False) as (_, port):
                line = [str(kit.generator), "127.0.0.1", str(port), *load]
                run_json(line, None, kit.folder, TIMEOUT)
            try:
                totals.append(tool.read(file.read_text(encoding="utf-8")))
            except OSError as error:
                raise Failure(f"{tool.name} wrote nothing: {error.strerror}") from error
            file.unlink()
    return (totals[1] - totals[0]) / (tool.many - FEW)


# ---- a whole result ----------------------------------------------------------------


# Under callgrind a server takes seconds to start: these stand for the others.
INSTRUCTIONS_OF = (
    "limit",
    "floor-*",
    "fastcore-*",
    "pyasyncore-*",
    "asyncio-protocol",
    "uvloop-protocol",
)


def is_counted(workload: Workload) -> bool:
    """Whether a workload is one of those to count: an echo of 1 KiB, and lines."""
    if workload.busy_thread or workload.idle or workload.pending_timers:
        return False
    if workload.group == "echo":
        return (workload.busy, workload.size) == (1, 1024)
    return workload.group == "line"


def jobs_of(result: Result, kit: Kit, tool: Tool) -> Iterator[tuple[Cell, Contender]]:
    """The cells to count."""
    for workload in filter(is_counted, result.workloads):
        for cell in result.row(workload.key):
            contender = kit.contenders[cell.server]
            chosen = tool is STRACE or any(fnmatchcase(cell.server, p) for p in INSTRUCTIONS_OF)
            if cell.rounds and chosen:
                yield cell, contender


def fill(
    result: Result, kit: Kit, deadline: float, say: Callable[[str], None] = lambda text: None
) -> list[str]:
    """Count for the cells of a result, until `deadline` (on time.monotonic()); notes.

    Servers run side by side: a count does not depend on what else the machine does.  `say` is
    told what is going on, from several threads.
    """
    notes = []
    for tool in (STRACE, CALLGRIND):
        reason = why_not(tool, kit.folder)
        if reason is not None:
            notes.append(f"No {tool.what} counted: {reason}.")
            continue
        jobs = list(jobs_of(result, kit, tool))

        def work(job: tuple[Cell, Contender], tool: Tool = tool) -> str | None:
            cell, contender = job
            workload = result.workload(cell.workload)
            what = f"{contender.server.label}, {workload.label}"
            if time.monotonic() > deadline:
                return NO_TIME
            say(f"counting {tool.what}: {what}")
            try:
                value = count(tool, contender, workload, kit)
            except Failure as failure:
                return f"No {tool.what} for {what}: {failure}."
            cell.counts = {**(cell.counts or {}), tool.figure: round(value, 3)}
            return None

        pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        try:
            found = list(pool.map(work, jobs))
        finally:
            pool.shutdown(cancel_futures=True)
        if left_out := found.count(NO_TIME):
            what = tool.what.capitalize()
            notes.append(f"{what} not counted for lack of time: {left_out} of {len(jobs)}.")
        notes += [note for note in found if note not in (None, NO_TIME)]
    return notes
