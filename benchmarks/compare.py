"""Compares two result files: what got slower, or faster, beyond its noise.

It works on the raw rounds of both files alone.  The rule is in RULE; it is what
`bench compare --help` prints.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from .result import CPU, HIGHER_IS_BETTER, MEMORY, RATE, Cell, Result

UNITS = {CPU: "us", RATE: "/s", MEMORY: "bytes"}
LEAST = 0.03  # changes below this share are never called a change
RULE = f"""\
Compares what each workload is about (CPU time per request; for some the rate, or memory) for
every server that both files have.  Each round counts as a multiple of the limit server's round of
the same number, so that a machine that is slower today slows down both; where there is no such
round, the plain figure counts.  A cell got slower when the median of its rounds got worse by more
than its noise, and by at least {LEAST:.0%}; its noise is half the distance from its best round to
its worst one, of both files together."""


@dataclass(frozen=True)
class Change:
    """One cell in two files: medians, and what they may differ by without meaning anything.

    `unit` is "x limit", or the figure's own.  `worse` is the change as a share of the old
    median: positive where it got worse, whichever direction is better.
    """

    server: str
    workload: str
    unit: str
    old: float
    new: float
    worse: float
    noise: float

    @property
    def beyond_noise(self) -> bool:
        """Whether it is a change at all."""
        return abs(self.worse) > max(self.noise, LEAST)


def values(result: Result, cell: Cell, name: str, by_limit: bool) -> list[float]:
    """A figure of each round, as a multiple of the limit's round of the same number or as it is."""
    if not by_limit:
        return cell.values(name)
    limit = result.cell("limit", cell.workload)
    base = {r["round"]: r.get(name) for r in limit.rounds} if limit else {}
    return [
        r[name] / base[r["round"]]
        for r in cell.rounds
        if r.get(name) is not None and base.get(r["round"])
    ]


def change(old: Result, new: Result, before: Cell, after: Cell) -> Change | None:
    """What became of one cell; None where one of the files has no figure."""
    name = new.workload(after.workload).figure
    by_limit = all(
        values(result, cell, name, True) for result, cell in ((old, before), (new, after))
    )
    was, now = values(old, before, name, by_limit), values(new, after, name, by_limit)
    middle = statistics.median(was) if was else 0.0
    if not middle or not now:
        return None
    difference = (statistics.median(now) - middle) / middle
    noise = sum(max(rounds) - min(rounds) for rounds in (was, now)) / 2 / middle
    return Change(
        after.server,
        after.workload,
        "x limit" if by_limit else UNITS[name],
        middle,
        statistics.median(now),
        -difference if name in HIGHER_IS_BETTER else difference,
        noise,
    )


def changes(old: Result, new: Result) -> list[Change]:
    """Every cell that both results have, the worst first; the limit is what they are held to."""
    found = []
    for after in new.cells:
        before = old.cell(after.server, after.workload) if after.server != "limit" else None
        if before is not None and (made := change(old, new, before, after)) is not None:
            found.append(made)
    return sorted(found, key=lambda c: -c.worse)


def lost(old: Result, new: Result) -> list[Cell]:
    """Cells that had figures in the old result and failed in the new one."""
    return [
        after
        for after in new.cells
        if not after.rounds
        and after.failure
        and (before := old.cell(after.server, after.workload)) is not None
        and before.rounds
    ]


def other_machine(old: Result, new: Result) -> list[str]:
    """What differs between the machines so that figures cannot be compared."""
    before, after = old.about.get("machine", {}), new.about.get("machine", {})
    return [
        f"{name}: {before.get(name)!r} and {after.get(name)!r}"
        for name in ("cpu", "cores", "pinned")
        if before.get(name) != after.get(name)
    ]


def other_conditions(old: Result, new: Result) -> list[str]:
    """What else differs; it may explain a change."""
    notes = []
    for part in ("versions", "machine"):
        before, after = old.about.get(part, {}), new.about.get(part, {})
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                notes.append(f"{name}: {before.get(name, 'none')} -> {after.get(name, 'none')}")
    if old.about.get("quick") != new.about.get("quick"):
        notes.append("one of the two is a --quick run")
    return notes


def make_table(title: str, found: list[Change], new: Result) -> Table:
    """The changes, a row each."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("workload")
    table.add_column("server", no_wrap=True)
    for heading in ("old", "new", "change", "noise", "of"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in found:
        share = (c.new - c.old) / c.old
        texts = [f"{c.old:,.2f}", f"{c.new:,.2f}", f"{share:+.1%}", f"{c.noise:.1%}", c.unit]
        table.add_row(new.workload(c.workload).label, new.server(c.server).label, *texts)
    return table


def compare(old: Result, new: Result, console: Console) -> int:
    """Print what changed; the number of cells that got slower or fail now."""
    for note in other_conditions(old, new):
        console.print(f"* {note}", markup=False)
    found = changes(old, new)
    slower = [c for c in found if c.beyond_noise and c.worse > 0]
    faster = [c for c in found if c.beyond_noise and c.worse < 0]
    for title, some in (("Slower", slower), ("Faster", faster[::-1])):
        if some:
            console.print(make_table(title, some, new))
    gone = lost(old, new)
    for cell in gone:
        label = new.server(cell.server).label
        console.print(f"* {label}, {new.workload(cell.workload).label}: {cell.failure}")
    console.print(
        f"{len(found)} figures compared: {len(slower)} slower, {len(faster)} faster, the others"
        f" within their noise; {len(gone)} that were measured before fail now."
    )
    if not found:
        console.print("The two files have nothing in common that was measured.")
    return len(slower) + len(gone)
