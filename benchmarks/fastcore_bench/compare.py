"""Compares two result files: what got slower, or faster, beyond its noise.

It works on the raw rounds of both files alone.  `bench compare --help` tells the rule.
"""

from __future__ import annotations

import statistics
import warnings
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

from .result import CPU, HIGHER_IS_BETTER, MEMORY, P50, RATE, Cell, Result

UNITS = {CPU: "us", RATE: "/s", MEMORY: "bytes", P50: "us"}
LEAST = 0.03  # changes below this share are never called a change
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Change:
    """One cell in two files: the means of its rounds, and between what the change lies.

    `unit` is "x limit", or the figure's own.  `low` and `high` are shares of the old mean: the
    change is between them with that confidence.
    """

    server: str
    workload: str
    unit: str
    old: float
    new: float
    low: float
    high: float
    higher_is_better: bool

    @property
    def share(self) -> float:
        """The change as a share of the old mean."""
        return (self.new - self.old) / self.old

    @property
    def worse(self) -> float:
        """The same, positive where it got worse, whichever direction is better."""
        return -self.share if self.higher_is_better else self.share

    @property
    def beyond_noise(self) -> bool:
        """Whether it is a change at all."""
        return abs(self.share) > LEAST and not self.low <= 0 <= self.high


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


def interval(was: list[float], now: list[float]) -> tuple[float, float]:
    """Between what the difference of the means lies, by Welch's t-test."""
    if len({*was}) == len({*now}) == 1:
        return now[0] - was[0], now[0] - was[0]  # nothing varies, which the test cannot do with
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where one of the two does not vary
        low, high = stats.ttest_ind(now, was, equal_var=False).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def change(old: Result, new: Result, before: Cell, after: Cell) -> Change | None:
    """What became of one cell; None where one of the files has too few figures."""
    name = new.workload(after.workload).figure
    by_limit = all(
        values(result, cell, name, True) for result, cell in ((old, before), (new, after))
    )
    was, now = values(old, before, name, by_limit), values(new, after, name, by_limit)
    if min(len(was), len(now)) < 2 or not (mean := statistics.fmean(was)):
        return None  # one round says nothing of its noise
    low, high = interval(was, now)
    return Change(
        after.server,
        after.workload,
        "x limit" if by_limit else UNITS[name],
        mean,
        statistics.fmean(now),
        low / mean,
        high / mean,
        name in HIGHER_IS_BETTER,
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
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("workload")
    table.add_column("server", overflow="fold")
    for heading in ("old", "new", "of", "change", f"{CONFIDENCE:.0%} sure"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in found:
        texts = [f"{c.old:,.2f}", f"{c.new:,.2f}", c.unit, f"{c.share:+.1%}"]
        texts.append(f"{100 * c.low:+.1f} to {c.high:+.1%}")
        table.add_row(new.workload(c.workload).label, new.server(c.server).label, *texts)
    return table


def compare(old: Result, new: Result, console: Console) -> int:
    """Print what changed; the number of cells that got slower or fail now."""
    for note in other_conditions(old, new):
        console.print(f"* {note}")
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
        console.print("The two files have nothing in common that was measured in two rounds.")
    return len(slower) + len(gone)
