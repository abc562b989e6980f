"""Whether a handler does anything to a file, a socket, or whatever else there is outside of Python.

Seen with the help of a profile function.  Where in doubt it has done something: what is not known
here may be a library that reads in its own way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, FunctionType, ModuleType
from typing import Any

from ._secure import is_wait

# What the modules of the interpreter do without anybody outside noticing.
_INSIDE = frozenset(
    {
        "builtins",
        "itertools",
        "time",
        "math",
        "gc",
        "sys",
        "errno",
        "marshal",
        "zlib",
        "binascii",
        "datetime",
        "collections",
        "select",
        "fcntl",
        "termios",
        "signal",
        "logging",
        "array",
        "atexit",
        "unicodedata",
        "_bisect",
        "_codecs",
        "_collections",
        "_contextvars",
        "_csv",
        "_datetime",
        "_functools",
        "_hashlib",
        "_heapq",
        "_json",
        "_operator",
        "_queue",
        "_random",
        "_signal",
        "_sre",
        "_stat",
        "_string",
        "_struct",
        "_thread",
        "_warnings",
        "_weakref",
        "weakref",
    }
)
_SOCKETS = frozenset({"_socket", "socket", "_ssl", "ssl"})
# Of sockets, what only asks or sets.
_ONLY_ASKS = ("fileno", "get", "set", "pending", "version", "cipher", "compression", "selected")
# Of files and of the system, what moves bytes or ends something.
_MOVES = ("read", "pread", "write", "pwrite", "sendfile", "splice", "close", "dup")
_TEXT = frozenset({"TextIOWrapper", "StringIO", "BytesIO"})  # where a program prints and logs
_READS = ("recv", "read", "accept", "_accept", "do_handshake")

# The library's own, which do it in C, unseen.
_OUR_MODULES = ("fastcore.asyncore", "fastcore.asynchat")
_OUR_OUTPUT = frozenset({"push", "push_with_producer"})
_OUR_CHANNELS = ("fastcore._c.channel", "fastcore._python.channel")


class Activity:
    """What was done while watch() ran.

    `handlers` are the methods of a channel by their names.  `did_something`: anything but reading;
    `has_read`: something was read, or the end; `called`: the names of those methods that ran;
    `error`: the class of what a handler has raised.  `seen` is False where another profile function
    took the place of this one.
    """

    def __init__(self, handlers: dict[str, Any]) -> None:
        self._names = {_code_of(handler): name for name, handler in handlers.items()}
        self.did_something = False
        self.has_read = False
        self.called: set[str] = set()
        self.error = ""
        self.seen = False

    def watch(self, function: Callable[..., Any], *args: Any) -> None:
        """Do `function(*args)`, and note what is done."""
        profile = self._profile
        sys.setprofile(profile)
        try:
            function(*args)
        finally:
            self.seen = sys.getprofile() == profile
            if self.seen:
                sys.setprofile(None)

    def note_error(self, error: BaseException) -> None:
        """Note what a handler has raised, unless that says that a secure socket has to wait."""
        if not is_wait(error):
            self.error = type(error).__name__

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_return":
            self._note_function(argument)
        elif event == "call":
            self._note_call(frame)
        elif event == "return":
            self._note_answer(frame, argument)

    def _note_call(self, frame: FrameType) -> None:
        name = self._names.get(frame.f_code, "")
        self.called.add(name)
        error = sys.exc_info()[1] if name == "handle_error" else None
        if error is not None:
            self.note_error(error)
        if frame.f_code.co_name in _OUR_OUTPUT and frame.f_globals.get("__name__") in _OUR_MODULES:
            self.did_something = True

    def _note_answer(self, frame: FrameType, answer: Any) -> None:
        """Note what the library's recv() and send() have returned: the rest of them is unseen."""
        if frame.f_globals.get("__name__") not in _OUR_CHANNELS:
            return
        name = frame.f_code.co_name
        if name == "recv" and answer is not None:
            self.has_read = True
        elif name == "send" and answer:
            self.did_something = True

    def _note_function(self, function: Any) -> None:
        """Note what a function that is written in C has done, now that it has returned."""
        name: str = getattr(function, "__name__", "")
        owner = getattr(function, "__self__", None)
        if isinstance(owner, ModuleType):
            module, kind = owner.__name__, ""
        else:
            home = _where_defined(owner if isinstance(owner, type) else type(owner), name)
            module, kind = home.__module__, home.__name__
        if module in _INSIDE or not _moves(module, kind, name):
            return
        if name.startswith(_READS):
            self.has_read = True
        else:
            self.did_something = True


def _moves(module: str, kind: str, name: str) -> bool:
    """Whether a function in C, of a module that is not all inside, does anything outside."""
    if module in _SOCKETS:
        return not name.startswith(_ONLY_ASKS)
    if module in ("posix", "nt"):
        return name.startswith(_MOVES)
    if module in ("_io", "io"):
        return kind not in _TEXT and name.startswith(_MOVES)
    return True


def _where_defined(kind: type[Any], name: str) -> type[Any]:
    """Return the class that has the method of that name: that of a subclass is the module's own."""
    for each in kind.__mro__:
        if name in vars(each):
            return each
    return kind


def _code_of(function: Any) -> Any:
    return getattr(getattr(function, "__func__", function), "__code__", None)


def can_be_seen(function: Any) -> bool:
    """Whether what a function does is seen here: it is written in Python, or not there at all."""
    function = getattr(function, "__func__", function)
    return function is None or isinstance(function, FunctionType)
