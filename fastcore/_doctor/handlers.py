"""What the handlers of channels do that stalls everybody, or that fails since text is not bytes."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from fastcore._doctor.findings import BREAKS, GAINS_NOTHING, Finding
from fastcore._doctor.source import Node, Source, argument, dotted, is_text
from fastcore._doctor.unit import CHAT, COPIED, SMTP, Class, Unit

_HANDLERS = {"found_terminator", "collect_incoming_data", "readable", "writable"}
_SMTP_HANDLERS = {"process_message"}
_BLOCKING = {
    "time.sleep": "call fastcore.get_loop().call_later(seconds, function) and return",
    "builtins.input": "read standard input with a file_dispatcher",
    "socket.create_connection": "self.create_socket() and self.connect() in a channel of its own",
    "select.select": "leave the waiting to asyncore.loop()",
    "os.system": "subprocess.Popen, with a file_dispatcher on its output",
}
_BLOCKING_MODULES = {
    "subprocess": ({"run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
                   "subprocess.Popen, with a file_dispatcher on its output"),
    "requests": ({"get", "post", "put", "delete", "head", "patch", "options", "request"}, ""),
    "httpx": ({"get", "post", "put", "delete", "head", "patch", "options", "request"}, ""),
    "urllib.request": ({"urlopen", "urlretrieve"}, ""),
    "urllib2": ({"urlopen"}, ""),
    "urllib": ({"urlopen", "urlretrieve"}, ""),
    "smtplib": ({"SMTP", "SMTP_SSL"}, ""),
}  # fmt: skip
_IN_A_THREAD = (
    "do it in a thread, which hands over its result with get_loop().call_soon_threadsafe()"
)


def check(unit: Unit) -> Iterator[Finding]:
    """Yield what stalls or fails in the classes that are channels."""
    for each in unit.classes.values():
        if not each.kinds or each.source.path in unit.copies:
            continue
        yield from _blocking(unit, each)
        if COPIED in each.kinds:
            continue
        if CHAT in each.kinds and not _has(unit, each, "use_encoding"):
            yield from _terminators(each)
            yield from _input(each)
        yield from _output(unit, each)


def _has(unit: Unit, each: Class, name: str) -> bool:
    """Whether the class or one of its bases in the program defines or sets that."""
    for one in unit.bases(each):
        if name in one.methods or name in one.assigned:
            return True
        for target in _own(one, cst.AssignTarget):
            if dotted(target.target) == f"self.{name}":
                return True
    return False


def _own(each: Class, kind: type[Node]) -> list[Node]:
    """The nodes of a class that are of no class within it."""
    source = each.source
    return [node for node in source.nodes(kind) if source.inside(node, cst.ClassDef) is each.node]


# -- what waits -----------------------------------------------------------------------------------


def _blocking(unit: Unit, each: Class) -> Iterator[Finding]:
    source = each.source
    reached = _reached(each)
    for call in source.nodes(cst.Call):
        method = source.inside(call, cst.FunctionDef)
        if method is None or each.methods.get(method.name.value) is not method:
            continue
        if source.inside(call, cst.Lambda) is not None or method.name.value not in reached:
            continue
        found = _waits(source, call)
        if found is not None:
            handler = reached[method.name.value]
            path = "" if handler == method.name.value else f", which {handler}() calls"
            what = f"{found[0]} in {method.name.value}(){path}: all channels of the loop wait"
            yield source.finding(call, "blocking", GAINS_NOTHING, what, found[1])


def _reached(each: Class) -> dict[str, str]:
    """The methods that handlers of the class call on themselves, each with such a handler."""
    handlers = _HANDLERS | _SMTP_HANDLERS if SMTP in each.kinds else _HANDLERS
    reached = {
        name: name for name in each.methods if name in handlers or name.startswith("handle_")
    }
    waiting = list(reached)
    while waiting:
        name = waiting.pop()
        for call in each.source.nodes(cst.Call):
            called = dotted(call.func).removeprefix("self.")
            if (
                dotted(call.func) == f"self.{called}"
                and called in each.methods
                and called not in reached
                and each.source.inside(call, cst.FunctionDef) is each.methods[name]
            ):
                reached[called] = reached[name]
                waiting.append(called)
    return reached


def _waits(source: Source, call: cst.Call) -> tuple[str, str] | None:
    """What a call waits for, and what to do instead; None where it returns at once."""
    for name in sorted(source.names(call.func)):
        module, _, function = name.rpartition(".")
        if name == "time.sleep" and call.args and source.text(call.args[0].value) in ("0", "0.0"):
            continue
        if module == "smtplib" and not call.args:
            continue  # it connects later
        if name in _BLOCKING:
            return f"{name.removeprefix('builtins.')}()", _BLOCKING[name]
        if function in _BLOCKING_MODULES.get(module, (set(), ""))[0]:
            return f"{name}()", _BLOCKING_MODULES[module][1] or _IN_A_THREAD
    if isinstance(call.func, cst.Attribute):
        shown = source.text(call.func)
        # Text that is joined needs an argument; what waits for a thread has at most a timeout.
        keywords = [each.keyword.value for each in call.args if each.keyword is not None]
        if call.func.attr.value == "join" and (not call.args or keywords == ["timeout"]):
            return f"{shown}()", "let the thread say that it ends, by call_soon_threadsafe()"
        if call.func.attr.value == "sendmail" and b"smtplib" in source.data:
            return f"{shown}()", _IN_A_THREAD
        if call.func.attr.value == "communicate":
            return f"{shown}()", "a file_dispatcher on the output of the process"
    return None


# -- text and bytes -------------------------------------------------------------------------------


def _terminators(each: Class) -> Iterator[Finding]:
    source = each.source
    for call in _own(each, cst.Call):
        if dotted(call.func) != "self.set_terminator":
            continue
        value = argument(call, 0, "term")
        if is_text(_value(source, each, value)):
            yield source.finding(
                call,
                "str-terminator",
                BREAKS,
                "the terminator is text, and what comes in is bytes",
                _as_bytes(source, value, "self.set_terminator({})"),
            )


def _value(
    source: Source, each: Class, node: cst.BaseExpression | None
) -> cst.BaseExpression | None:
    """What a name was assigned in the file or in the class, where that is once."""
    name = dotted(node)
    if not name:
        return node
    wanted = name.removeprefix("self.")
    found: list[cst.BaseExpression] = []
    for assignment in source.nodes(cst.Assign):
        if any(dotted(target.target) in (name, wanted) for target in assignment.targets):
            scope = source.inside(assignment, cst.ClassDef)
            function = source.inside(assignment, cst.FunctionDef)
            is_attribute = name != wanted
            if (scope is each.node) if is_attribute else (scope is None and function is None):
                found.append(assignment.value)
    return found[0] if len(found) == 1 else node


def _output(unit: Unit, each: Class) -> Iterator[Finding]:
    source = each.source
    own = {name for name in ("push", "send") if _has(unit, each, name)}
    if SMTP in each.kinds:
        own |= {"push"}  # that of SMTPChannel takes text
    for call in _own(each, cst.Call):
        name = dotted(call.func).removeprefix("self.")
        if dotted(call.func) != f"self.{name}" or name not in {"push", "send"} - own:
            continue
        if name == "push" and CHAT not in each.kinds:
            continue
        value = argument(call, 0, "data")
        if is_text(_value(source, each, value)):
            fix = _as_bytes(source, value, f"self.{name}({{}})")
            yield source.finding(call, "str-output", BREAKS, f"{name}() takes bytes, not text", fix)


def _as_bytes(source: Source, node: cst.BaseExpression | None, form: str) -> str:
    assert node is not None
    code = source.text(node)
    if isinstance(node, cst.SimpleString) and code.isascii():
        return form.format("b" + code.lstrip("uU"))
    if isinstance(node, (cst.BinaryOperation, cst.ConcatenatedString)):
        code = f"({code})"
    return form.format(code + '.encode("utf-8")')


def _input(each: Class) -> Iterator[Finding]:
    """Text that is joined from what `collect_incoming_data()` has kept, which is bytes."""
    source = each.source
    method = each.methods.get("collect_incoming_data")
    if method is None or len(method.params.params) < 2:
        return
    data = method.params.params[1].name.value
    kept = {
        dotted(call.func).removeprefix("self.").removesuffix(".append")
        for call in source.nodes(cst.Call)
        if source.inside(call, cst.FunctionDef) is method
        and dotted(call.func).startswith("self.")
        and dotted(call.func).endswith(".append")
        and [dotted(arg.value) for arg in call.args] == [data]
    }
    for call in _own(each, cst.Call):
        if not isinstance(call.func, cst.Attribute) or call.func.attr.value != "join":
            continue
        joined = dotted(call.args[0].value).removeprefix("self.") if call.args else ""
        if is_text(call.func.value) and joined in kept:
            what = "joins what came in, which is bytes, to text"
            fix = f'b"".join(self.{joined}).decode("utf-8")'
            yield source.finding(call, "str-input", BREAKS, what, fix)
