"""What one run of the benchmarks found, and the JSON file that keeps it.

Everything here is plain data and arithmetic over raw rounds.  It must not know how anything is
measured or shown.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

FORMAT = 1
CPU = "cpu_us_per_request"
RATE = "requests_per_second"
MEMORY = "rss_per_connection"
P50 = "p50_us"
THREAD_SHARE = "thread_share"
# Where more is better; of all other figures less is.
HIGHER_IS_BETTER = frozenset({RATE})
FAMILIES = (
    "limit",
    "floor",
    "fastcore-c",
    "fastcore-python",
    "pyasyncore",
    "asyncio",
    "uvloop",
    "rloop",
    "gevent",
    "pyftpdlib",
    "socketserver",
)
ENGINES = {"fastcore-c": "C", "fastcore-python": "Python"}  # by family
# What fastcore is compared with, as opposed to itself, the limit and the floor.
PEERS = frozenset(FAMILIES[4:])

Round = dict[str, Any]  # one line of JSON from the load generator, and "round": its number
T = TypeVar("T")


class ResultError(Exception):
    """A file cannot be read as a result; the text says why."""


@dataclass(frozen=True)
class Server:
    """One row: a program on one framework.  `missing` says why it could not run."""

    key: str
    label: str
    family: str
    missing: str | None = None


@dataclass(frozen=True)
class Workload:
    """What the load did.  `size` in bytes, `busy` and `idle` in connections."""

    key: str
    label: str
    group: str
    protocol: str
    size: int = 1024
    busy: int = 1
    idle: int = 0
    in_flight: int = 1
    busy_thread: bool = False
    pending_timers: int = 0  # which wait in the server meanwhile
    requests: int | None = None  # stop after so many, instead of after a time
    unit: str = "request"  # what is counted as one
    figure: str = CPU  # the figure that this workload is about


@dataclass
class Cell:
    """One server under one workload: raw rounds, or the reason that there are none.

    `counts` has system calls and instructions per request, where they were counted.
    """

    server: str
    workload: str
    rounds: list[Round] = field(default_factory=list)
    counts: dict[str, float | None] | None = None
    failure: str | None = None

    def values(self, name: str) -> list[float]:
        """A figure of each round that has it."""
        return [float(r[name]) for r in self.rounds if r.get(name) is not None]

    def median(self, name: str) -> float | None:
        """The median of a figure over the rounds."""
        values = self.values(name)
        return statistics.median(values) if values else None

    def spread(self, name: str) -> tuple[float, float] | None:
        """The lower and the upper quartile of a figure over the rounds."""
        return quartiles(self.values(name))

    @property
    def errors(self) -> int:
        """Wrong or missing answers in all rounds."""
        return sum(int(r.get("errors") or 0) for r in self.rounds)


@dataclass
class Result:
    """One run: the machine, what was compared, the cells, and notes for the reader."""

    about: dict[str, Any] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    workloads: list[Workload] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def server(self, key: str) -> Server:
        """The server of that key; KeyError where there is none."""
        return {server.key: server for server in self.servers}[key]

    def workload(self, key: str) -> Workload:
        """The workload of that key; KeyError where there is none."""
        return {workload.key: workload for workload in self.workloads}[key]

    def cell(self, server: str, workload: str) -> Cell | None:
        """The cell of these two keys, where it is part of the run."""
        for cell in self.cells:
            if (cell.server, cell.workload) == (server, workload):
                return cell
        return None

    def row(self, workload: str) -> list[Cell]:
        """All cells of a workload, in the order of the servers."""
        order = {server.key: index for index, server in enumerate(self.servers)}
        cells = [cell for cell in self.cells if cell.workload == workload]
        return sorted(cells, key=lambda cell: order[cell.server])

    def ratio_to_limit(self, cell: Cell, name: str = CPU) -> float | None:
        """A figure's median as a multiple of the limit server's under the same workload."""
        return ratio(cell, self.cell("limit", cell.workload), name)

    def best_peer(self, workload: str, name: str = CPU) -> Cell | None:
        """The best cell of a workload among all that one could use instead of fastcore."""
        found = [
            (value, cell)
            for cell in self.row(workload)
            if self.server(cell.server).family in PEERS and (value := cell.median(name))
        ]
        choose = max if name in HIGHER_IS_BETTER else min
        return choose(found, key=lambda pair: pair[0])[1] if found else None

    def ratio_to_best_peer(self, cell: Cell, name: str = CPU) -> float | None:
        """A figure's median as a multiple of the best peer's under the same workload."""
        return ratio(cell, self.best_peer(cell.workload, name), name)

    def worst_rows(self, family: str) -> list[tuple[float, Cell, Cell]]:
        """A family's cells beside the best peer's, worst first: how many times worse, and both.

        Below 1 the cell is the better one of the two.
        """
        found = []
        for workload in self.workloads:
            name = workload.figure
            peer = self.best_peer(workload.key, name)
            for cell in self.row(workload.key):
                value = ratio(cell, peer, name)
                if value and peer and self.server(cell.server).family == family:
                    worse = 1 / value if name in HIGHER_IS_BETTER else value
                    found.append((worse, cell, peer))
        return sorted(found, key=lambda row: row[0], reverse=True)


def ratio(cell: Cell, other: Cell | None, name: str = CPU) -> float | None:
    """One cell's median of a figure as a multiple of another's."""
    own = cell.median(name)
    theirs = other.median(name) if other else None
    return own / theirs if own is not None and theirs else None


def quartiles(values: Iterable[float]) -> tuple[float, float] | None:
    """The lower and the upper quartile; of one value, that value twice."""
    values = list(values)
    if not values:
        return None
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def save(result: Result, path: Path) -> None:
    """Write the file as a whole or not at all: an interrupted run keeps the one before."""
    text = json.dumps({"format": FORMAT, **asdict(result)}, indent=1) + "\n"
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def load(path: Path) -> Result:
    """Read a file that `save` wrote; ResultError says what is wrong with any other."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict) or "cells" not in data:
        raise ResultError(f"{path} is no result of `python -m fastcore bench`")
    if data.get("format") != FORMAT:
        raise ResultError(f"{path} has format {data.get('format')}; this reads format {FORMAT}")
    try:
        return Result(
            about=dict(data["about"]),
            servers=[build(Server, item) for item in data["servers"]],
            workloads=[build(Workload, item) for item in data["workloads"]],
            cells=[build(Cell, item) for item in data["cells"]],
            notes=[str(note) for note in data["notes"]],
        )
    except (KeyError, TypeError) as error:
        raise ResultError(f"{path} is not complete: {error}") from error


def build(kind: type[T], item: dict[str, Any]) -> T:
    """A dataclass from its JSON; fields that a later version added are passed over."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in item.items() if name in names})
