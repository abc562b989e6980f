"""Processes that a program starts, and whether they find fastcore under the old names."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from fastcore._doctor.findings import RUNS, SETTING, Finding
from fastcore._doctor.imports import calls_install
from fastcore._doctor.source import Source, literal
from fastcore._doctor.unit import Unit

_LEFT_OUT = {"E": "PYTHONPATH", "I": "PYTHONPATH", "S": "the module site"}


def check(unit: Unit) -> Iterator[Finding]:
    """Yield the children that need something."""
    by_itself = calls_install(unit)
    for source in unit.sources.values():
        if source.path not in unit.copies:
            yield from _commands(source)
            yield from _started_anew(source, by_itself)


def _commands(source: Source) -> Iterator[Finding]:
    """Commands that begin with this Python and an option that leaves fastcore out."""
    commands: list[cst.List | cst.Tuple] = [*source.nodes(cst.List), *source.nodes(cst.Tuple)]
    for command in commands:
        values = [each.value for each in command.elements]
        if not values or "sys.executable" not in source.imported(values[0]):
            continue
        for value in values[1:]:
            text = literal(value)
            if not text.startswith("-") or text.startswith("--"):
                break  # what follows is for the program
            letters = text[1:].partition("c")[0].partition("m")[0]
            found = [each for each in letters if each in _LEFT_OUT]
            if found:
                what = f"the child leaves out {_LEFT_OUT[found[0]]}, by -{found[0]}"
                other = (
                    "import from fastcore in it" if "S" in found else "`python -m fastcore enable`"
                )
                fix = f"leave out -{found[0]}, or {other}: `run` does not reach it"
                yield source.finding(value, "child", SETTING, what, fix)
                break
            if text in ("-c", "-m") or {"c", "m"} & set(text):
                break


def _started_anew(source: Source, by_itself: bool) -> Iterator[Finding]:
    """Children of multiprocessing that begin with nothing imported."""
    for call in source.nodes(cst.Call):
        names = source.imported(call.func)
        if not names & {"multiprocessing.set_start_method", "multiprocessing.get_context"}:
            continue
        text = literal(call.args[0].value if call.args else None)
        if text in ("spawn", "forkserver"):
            what = f"children begin anew ({text})"
            if by_itself:
                fix = "call fastcore.install() in them, too, or use `python -m fastcore enable`"
                yield source.finding(call, "child", SETTING, f"{what}: nothing is installed", fix)
            else:
                fix = "nothing: `python -m fastcore run` and `enable` reach them"
                yield source.finding(call, "child", RUNS, what, fix)
