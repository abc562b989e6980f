"""How channels and callbacks are named in what is logged; nothing here raises, whatever they are.

Knows the names of a channel's methods.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

READ_EVENT, WRITE_EVENT, CLOSE = "read", "write", "close"

HANDLERS = {
    READ_EVENT: ("handle_read_event", "handle_read"),
    WRITE_EVENT: ("handle_write_event", "handle_write"),
    CLOSE: ("handle_close",),
}
_OF_LISTENERS = ("handle_read_event", "handle_accept", "handle_accepted")
_OF_CHATS = ("collect_incoming_data", "found_terminator")
_LONGEST = 300  # characters of a repr


def attribute(thing: Any, name: str, default: Any = None) -> Any:
    """Return an attribute that a channel has, without a __getattr__() of the program's."""
    try:
        return object.__getattribute__(thing, name)
    except Exception:  # a property may raise whatever it likes
        return default


def describe(thing: Any) -> str:
    """Return the repr of anything, or what can be said of it without that."""
    try:
        text = repr(thing)
    except Exception as error:
        kind = cast("type[object]", type(thing))
        name = f"{kind.__module__}.{kind.__qualname__}"
        return f"<{name} at {id(thing):#x}, whose repr() raises {type(error).__name__}>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def name_of_handler(channel: Any, kind: str, *, accepting: bool) -> str:
    """Return which of a channel's methods an event of that kind calls.

    Those that the program has written: what the library's own do is not what takes long.
    """
    names = _OF_LISTENERS if accepting and kind == READ_EVENT else HANDLERS[kind]
    written = [name for name in names if _is_written(channel, name)]
    if not written and names is HANDLERS[READ_EVENT]:
        written = [name for name in _OF_CHATS if _is_written(channel, name)]
        if written:
            return f"handle_read() with {_and(written)}"
    return _and(written or (names[-1],))


def _and(names: Any) -> str:
    return " and ".join(f"{name}()" for name in names)


def _is_written(channel: Any, name: str) -> bool:
    """Whether the program has a method of that name, and not only the library."""
    method = attribute(channel, name)
    function = getattr(method, "__func__", method)
    module = getattr(function, "__module__", None)
    return function is not None and not str(module).startswith("fastcore.")


def name_of_callback(callback: Any) -> str:
    """Return what a callback is called, and where it is written."""
    while isinstance(callback, partial):
        callback = callback.func
    function = getattr(callback, "__func__", callback)
    name = getattr(function, "__qualname__", None)
    code = getattr(function, "__code__", None)
    if not isinstance(name, str):
        return describe(callback)
    place = "" if code is None else f" at {code.co_filename}:{code.co_firstlineno}"
    return f"{name}(){place}"


def channel_of(callback: Any) -> Any:
    """Return the channel whose method a callback is, None where it is nobody's."""
    while isinstance(callback, partial):
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    return None if attribute(owner, "handle_read_event") is None else owner
