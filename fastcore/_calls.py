"""How channels are asked and called, in bytecode, by either engine.

Never compiled: since 3.11 the interpreter looks an attribute up, and calls a method that is written
in Python, for a third of what the same costs from C.  Each look-up stands in the `try` of its call,
so that what either raises takes the same way.  Knows only the names of a channel's methods; which
channels are called, and what an exception means, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ._codes import READ, WRITE

UNKNOWN = -1  # the answer of a channel whose predicate raised


class Judge(Protocol):
    """Decides what becomes of an exception, while that is active."""

    def failed(self, channel: Any, error: BaseException) -> bool:
        """Tell the channel of what its handler raised; False: it is to leave the loop."""
        ...

    def failed_to_answer(self, channel: Any, error: BaseException) -> bool:
        """Tell the channel of what its predicate raised; False: it is to leave the loop."""
        ...


class Calls(Protocol):
    """The functions by which channels are asked and called: those of this module, or others."""

    def ask(self, channel: Any, judge: Judge, /) -> int:
        """Return what the channel wants."""
        ...

    def tell_readable(self, channel: Any, judge: Judge, /) -> None:
        """Call the read handler, if the channel still wants to read."""
        ...

    def tell_writable(self, channel: Any, judge: Judge, /) -> None:
        """Call the write handler, if the channel still wants to write."""
        ...

    def tell_urgent(self, channel: Any, judge: Judge, /) -> None:
        """Call the handler for urgent data."""
        ...

    def tell_closed(self, channel: Any, judge: Judge, /) -> None:
        """Call the handler for the end of the connection."""
        ...


class Watch(Calls, Protocol):
    """What stands between an engine and all that it calls, where a loop is watched."""

    def call(self, callback: Any, call: Callable[[], None], /) -> None:
        """Do `call()`, which calls `callback`."""
        ...


def ask(channel: Any, judge: Judge) -> int:
    """Return what the channel wants, asked in the order of the standard loop."""
    try:
        want = READ if channel.readable() else 0
        if channel.writable() and not channel.accepting:
            want |= WRITE
    except BaseException as error:
        if not judge.failed_to_answer(channel, error):
            raise
        return UNKNOWN
    return want


def tell_readable(channel: Any, judge: Judge) -> None:
    """Call the read handler, if the channel still wants to read."""
    try:
        wants = channel.readable()
    except BaseException as error:
        if not judge.failed_to_answer(channel, error):
            raise
        return
    if wants:
        try:
            channel.handle_read_event()
        except BaseException as error:
            if not judge.failed(channel, error):
                raise


def tell_writable(channel: Any, judge: Judge) -> None:
    """Call the write handler, if the channel still wants to write."""
    try:
        wants = channel.writable()
    except BaseException as error:
        if not judge.failed_to_answer(channel, error):
            raise
        return
    if wants:
        try:
            channel.handle_write_event()
        except BaseException as error:
            if not judge.failed(channel, error):
                raise


def tell_urgent(channel: Any, judge: Judge) -> None:
    """Call the handler for urgent data."""
    try:
        channel.handle_expt_event()
    except BaseException as error:
        if not judge.failed(channel, error):
            raise


def tell_closed(channel: Any, judge: Judge) -> None:
    """Call the handler for the end of the connection."""
    try:
        channel.handle_close()
    except BaseException as error:
        if not judge.failed(channel, error):
            raise


def find_socket(channel: Any) -> Any:
    """Return the socket that a channel has as an attribute of its own, else None.

    The standard loop asked for none: so no code of the program's runs here.
    """
    if hasattr(type(getattr(type(channel), "socket", None)), "__get__"):  # pyright: ignore
        return None  # a property, or its like
    try:
        return object.__getattribute__(channel, "socket")
    except AttributeError:
        return None
