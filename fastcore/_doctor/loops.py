"""Who drives the loop: fastcore has nothing to give where a program waits by itself."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from fastcore._doctor.findings import BREAKS, GAINS_NOTHING, RUNS, Finding
from fastcore._doctor.source import Source, argument, dotted
from fastcore._doctor.unit import Unit

_POLLS = {"asyncore.poll", "asyncore.poll2", "asyncore.poll3"}
_DELIVERS = {"asyncore.read", "asyncore.write", "asyncore.readwrite", "asyncore._exception"}
_EVENTS = {"handle_read_event", "handle_write_event"}
_QUESTIONS = {"builtins.callable", "builtins.hasattr", "builtins.isinstance"}
_WAITS = {"poll", "select", "control"}


def check(unit: Unit) -> Iterator[Finding]:
    """Yield the loops that programs have of their own, and what they call that is gone."""
    for source in unit.sources.values():
        if source.path not in unit.copies:
            yield from _polls(unit, source)
            yield from _turns(unit, source)
            yield from _own_loops(unit, source)
        yield from _wrap_socket(source)


def meanings(unit: Unit, source: Source, node: cst.CSTNode) -> set[str]:
    """Return what a name means, a copy's names as those of the module that it copies."""
    found = {unit.meaning(name, source.path) for name in source.imported(node)}
    return {name.removeprefix("copy:") for name in found}


def _polls(unit: Unit, source: Source) -> Iterator[Finding]:
    for node in [*source.nodes(cst.Attribute), *source.nodes(cst.Name)]:
        found = meanings(unit, source, node) & _POLLS
        if found and _is_taken(source, node):
            name = found.pop()
            yield source.finding(
                node,
                "poll",
                GAINS_NOTHING,
                f"{name}() asks every channel and the system anew each time",
                "asyncore.loop(), with fastcore.get_loop().call_later() or call_every() for what "
                "is done in between; or fastcore.get_loop().run_once(timeout) in its place",
            )


def _turns(unit: Unit, source: Source) -> Iterator[Finding]:
    """Loops of the program around `loop(count=1)`."""
    for call in source.nodes(cst.Call):
        if "asyncore.loop" in meanings(unit, source, call.func):
            count = argument(call, 3, "count")
            is_one = isinstance(count, cst.Integer) and count.value == "1"
            if is_one or (count is not None and source.inside(call, cst.While) is not None):
                what = "one turn at a time: what is watched stays known, each turn costs more"
                fix = "nothing; what is done in between can be a fastcore.get_loop().call_every()"
                yield source.finding(call, "turns", RUNS, what, fix)


def _is_taken(source: Source, node: cst.CSTNode) -> bool:
    """Whether a function is called or kept, rather than only asked for."""
    parent = next(source.parents(node))
    if isinstance(parent, cst.Call):
        return parent.func is node
    if isinstance(parent, cst.Arg):
        call = source.inside(parent, cst.Call)
        return call is None or not source.names(call.func) & _QUESTIONS
    return isinstance(parent, (cst.Assign, cst.AnnAssign, cst.Return, cst.Param))


def _own_loops(unit: Unit, source: Source) -> Iterator[Finding]:
    fix = "hand the descriptors to asyncore.loop(), as file_dispatchers or channels"
    for node in source.nodes(cst.Attribute):
        found = meanings(unit, source, node) & _DELIVERS
        if found and _is_taken(source, node):
            what = f"takes {found.pop()}(): the program delivers events by itself"
            yield source.finding(node, "own-loop", GAINS_NOTHING, what, fix)
    for function in source.nodes(cst.FunctionDef):
        calls = [
            each
            for each in source.nodes(cst.Call)
            if isinstance(each.func, cst.Attribute)
            and source.inside(each, cst.FunctionDef) is function
        ]
        waits = any(_attribute(each) in _WAITS for each in calls)
        events = [each for each in calls if _attribute(each) in _EVENTS and _is_foreign(each)]
        if waits and events:
            what = f"{function.name.value}() waits and delivers events by itself"
            yield source.finding(events[0], "own-loop", GAINS_NOTHING, what, fix)


def _attribute(call: cst.Call) -> str:
    assert isinstance(call.func, cst.Attribute)
    return call.func.attr.value


def _is_foreign(call: cst.Call) -> bool:
    """Whether the method is another object's: not self's, nor a base class's."""
    assert isinstance(call.func, cst.Attribute)
    value = call.func.value
    is_own = isinstance(value, cst.Call) or dotted(value) == "self"
    return not is_own and not call.args


def _wrap_socket(source: Source) -> Iterator[Finding]:
    for call in source.nodes(cst.Call):
        if "ssl.wrap_socket" not in source.imported(call.func):
            continue
        shown = [
            source.module.code_for_node(value) if value is not None else default
            for value, default in (
                (argument(call, 0, "sock"), "sock"),
                (argument(call, 2, "certfile"), ""),
                (argument(call, 1, "keyfile"), ""),
            )
        ]
        side = argument(call, 3, "server_side")
        is_server = side is not None and source.text(side) != "False"
        purpose = "SERVER" if is_server else "CLIENT"
        chain = (
            f"context.load_cert_chain({', '.join(shown[1:]).rstrip(', ')}); " if shown[1] else ""
        )
        ending = "server_side=True" if is_server else "server_hostname=..."
        yield source.finding(
            call,
            "wrap-socket",
            BREAKS,
            "ssl.wrap_socket() left Python in 3.12",
            f"context = ssl.SSLContext(ssl.PROTOCOL_TLS_{purpose}); {chain}"
            f"context.wrap_socket({shown[0]}, {ending}); or start_tls() of fastcore.tls",
        )
