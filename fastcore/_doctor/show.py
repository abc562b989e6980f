"""How findings are shown: a table in a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import fastcore
from fastcore._doctor.findings import (
    BREAKS,
    GAINS_NOTHING,
    RUNS,
    SETTING,
    UNREAD,
    VERDICTS,
    Finding,
    status,
)  # fmt: skip
from fastcore._doctor.rewrite import Change

_COLOURS = {
    RUNS: "green",
    GAINS_NOTHING: "cyan",
    SETTING: "yellow",
    BREAKS: "red",
    UNREAD: "magenta",
}


def as_json(findings: list[Finding], changes: list[Change], read: int) -> str:
    """Return all of it as JSON."""
    return json.dumps(
        {
            "fastcore": fastcore.__version__,
            "files": read,
            "status": status(findings),
            "verdicts": _counts(findings),
            "findings": [each.as_json() for each in findings],
            "changes": [
                {"path": str(each.path), "line": each.line, "done": each.done, "what": each.what}
                for each in changes
            ],
        },
        indent=2,
    )


def show(findings: list[Finding], changes: list[Change], read: int) -> None:
    """Print it on standard output: with colours where that is a terminal."""
    console = Console(highlight=False)
    if console.is_terminal:
        _table(console, findings)
    else:
        for each in findings:
            fix = f"; {each.fix}" if each.fix else ""
            print(f"{_place(each)}: {each.verdict}: {each.what}{fix} [{each.rule}]")
    for change in changes:
        print(f"{_relative(change.path)}:{change.line}: {change.what}")
    print(summary(findings, changes, read))


def summary(findings: list[Finding], changes: list[Change], read: int) -> str:
    """Return the last line: how many of each."""
    counted = ", ".join(f"{count} {verdict}" for verdict, count in _counts(findings).items())
    done = sum(each.done for each in changes)
    parts = [counted or "nothing that uses asyncore, asynchat or smtpd"]
    parts += [f"{done} changed, {len(changes) - done} left"] if changes else []
    return f"{read} file{'' if read == 1 else 's'}: {'; '.join(parts)}"


def _table(console: Console, findings: list[Finding]) -> None:
    if not findings:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("place", overflow="fold", ratio=3)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what, and what to do", overflow="fold", ratio=7)
    for each in findings:
        colour = _COLOURS[each.verdict]
        what = escape(each.what) + (f"\n[dim]{escape(each.fix)}[/dim]" if each.fix else "")
        table.add_row(escape(_place(each)), f"[{colour}]{each.verdict}[/{colour}]", what)
    console.print(table)


def _counts(findings: list[Finding]) -> dict[str, int]:
    counted = Counter(each.verdict for each in findings)
    return {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]}


def _place(finding: Finding) -> str:
    return f"{_relative(finding.path)}:{finding.line}" if finding.line else _relative(finding.path)


def _relative(path: Path) -> str:
    """A path as one would type it here; what no encoding can show is escaped."""
    try:
        path = path.relative_to(Path.cwd())
    except (ValueError, OSError):
        pass
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
